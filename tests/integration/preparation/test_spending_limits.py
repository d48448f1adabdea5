"""Limits on what a document, a run and a day may buy, and what a plan says of them."""

from __future__ import annotations

import asyncio
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from ingest_pipeline.cli._output import reembedding_line
from ingest_pipeline.config.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.embedding.local import LOCAL_MODEL
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import DocumentTooLargeError, SpendingLimitError
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.estimate import count, estimate
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.planning.run_backoff import record_run_failure, waiting_backoff
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.preparation.spending_guard import read_spent
from tests.support.world import World, paragraphs

TOKENS_A_PARAGRAPH = 220
"""What the server bills for one of `paragraphs`, at most."""


def limited(world: World, limits: SpendingLimits) -> World:
    settings = world.settings.replace(
        max_chunks=limits.chunks_per_document or 0,
        max_tokens_per_run=limits.tokens_per_run or 0,
        max_tokens_per_day=limits.tokens_per_day or 0,
    )
    return World(world.database, settings, world.embeddings)


def put_docx(world: World, key: str, count: int) -> Path:
    """A file of a few kilobytes that holds as many different paragraphs as one likes."""
    body = "".join(f"<w:p><w:r><w:t>Paragraph {number} {'of words ' * 80}</w:t></w:r></w:p>" for number in range(count))
    path = Path(world.settings.source) / key
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    relations = "application/vnd.openxmlformats-package.relationships+xml"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        f'<Default Extension="rels" ContentType="{relations}"/><Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{main}"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{office}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body>{body}</w:body></w:document>",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return path


def billed_today(world: World) -> int:
    with world.database.transaction() as connection:
        return read_spent(connection, world.corpus.name).today


@pytest.mark.promise("limits")
def test_a_document_with_too_many_chunks_fails_before_it_is_embedded(world: World) -> None:
    world = limited(world, SpendingLimits(200, None, None))
    world.put("large.txt", paragraphs("alpha", 300))
    world.put("small.txt", paragraphs("beta", 5))
    packed = put_docx(world, "packed.docx", 500)
    assert packed.stat().st_size < 20_000
    summary = world.ingest()
    assert set(summary.failed) == {"large.txt", "packed.docx"}
    for _, error in summary.failed.values():
        assert isinstance(error, DocumentTooLargeError)
        assert "has more than 200 chunks" in str(error)
        assert "INGEST_MAX_CHUNKS" in str(error)
    assert world.embeddings.embedded == len(world.chunks("small.txt"))
    assert not any("alpha" in text or "Paragraph" in text for text in world.embeddings.texts)


@pytest.mark.promise("limits")
def test_a_run_ends_at_its_limit_and_the_next_one_continues(world: World) -> None:
    limit = 20 * TOKENS_A_PARAGRAPH
    world = limited(world, SpendingLimits(None, limit, None))
    world.put("a.txt", paragraphs("alpha", 50))
    for _ in range(2):
        before = world.embeddings.tokens
        with pytest.raises(SpendingLimitError, match="INGEST_MAX_TOKENS_PER_RUN") as refused:
            world.ingest()
        assert refused.value.until is None
        # Passed at most by the error of the estimate for the last requests: less than the tokens of a paragraph.
        assert limit / 2 < world.embeddings.tokens - before <= limit + TOKENS_A_PARAGRAPH
    limited(world, NO_LIMITS).ingest()
    assert max(world.embeddings.texts.values()) == 1
    assert world.audit().violations == []


@pytest.mark.promise("limits")
def test_the_daily_limit_covers_all_runs_together(world: World) -> None:
    writers, texts_a_batch = 4, 4
    limit = 60 * TOKENS_A_PARAGRAPH
    world = limited(world, SpendingLimits(None, None, limit))
    for number in range(writers):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 60))
    assert world.corpus
    world.embeddings.latency = 0.02
    settings = replace(world.embedding_settings, concurrency=1, batch_inputs=texts_a_batch)

    def write(number: int) -> SpendingLimitError | Summary:
        context = open_context(world.database, world.settings)
        plans = Planner(context).plans([f"{number}.txt"])

        async def run() -> Summary:
            async with OpenAIEmbedder(settings) as embedder:
                return await Ingestion(context, embedder).run(plans)

        try:
            return asyncio.run(run())
        except SpendingLimitError as error:
            return error

    with ThreadPoolExecutor(writers) as pool:
        outcomes = list(pool.map(write, range(writers)))
    errors = [outcome for outcome in outcomes if isinstance(outcome, SpendingLimitError)]
    assert errors
    assert all(error.until is not None and "INGEST_MAX_TOKENS_PER_DAY" in str(error) for error in errors)
    in_flight = 2 * settings.concurrency * texts_a_batch * TOKENS_A_PARAGRAPH
    assert billed_today(world) == world.embeddings.tokens <= limit + (writers - 1) * in_flight
    assert world.embeddings.tokens > limit / 2


class FreeEmbedder(OpenAIEmbedder):
    is_free: ClassVar[bool] = True


def test_a_model_that_costs_nothing_has_no_limit_on_tokens(world: World) -> None:
    world = limited(world, SpendingLimits(None, 1, 1))
    world.put("a.txt", paragraphs("alpha", 9))
    plans = Planner(world.context).plans()

    async def run() -> Summary:
        async with FreeEmbedder(world.embedding_settings) as embedder:
            return await Ingestion(open_context(world.database, world.settings), embedder).run(plans)

    assert len(asyncio.run(run()).publications) == 1


@pytest.mark.promise("limits")
def test_sensors_wait_for_the_next_day_or_for_another_limit(world: World) -> None:
    corpus, tomorrow = world.corpus, datetime.now(UTC) + timedelta(days=1)
    record_run_failure(corpus, "settings", SpendingLimitError("The day's limit", "Wait.", until=tomorrow))
    backoff = waiting_backoff(corpus, "settings")
    assert backoff is not None
    assert backoff.next_at == tomorrow
    assert waiting_backoff(corpus, "other settings") is None
    record_run_failure(corpus, "settings", SpendingLimitError("The run's limit", "Raise it."))
    backoff = waiting_backoff(corpus, "settings")
    assert backoff is not None
    assert backoff.next_at is None


@pytest.mark.promise("estimates")
def test_a_plan_says_which_limits_it_would_meet(world: World) -> None:
    world = limited(world, SpendingLimits(30, 1000, None))
    world.put("large.txt", paragraphs("alpha", 80))
    for number in range(5):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 8))
    plans = Planner(world.context).plans()
    for foreseen in (estimate(world.context, plans), count(world.context, plans)):
        assert foreseen.too_large == ["large.txt"]
        line = reembedding_line(foreseen)
        assert "more than the 1000 tokens that INGEST_MAX_TOKENS_PER_RUN allows a run" in line
        assert "INGEST_MAX_CHUNKS" in line
    assert world.embeddings.requests == 0
    assert estimate(limited(world, NO_LIMITS).context, plans).over_limit is None


@pytest.mark.parametrize("is_served", [True, False])
def test_limits_apply_to_what_is_billed_whatever_the_name_of_the_model(world: World, *, is_served: bool) -> None:
    world.put("a.txt", paragraphs("alpha", 8))
    settings = world.settings.replace(
        embedding_model=LOCAL_MODEL,
        embedding_dimensions=8,
        embedding_base_url=world.embeddings.base_url if is_served else None,
        max_tokens_per_run=100,
    )
    context = open_context(world.database, settings, create=False)
    assert (estimate(context, Planner(context).plans()).over_limit is not None) is is_served


@pytest.mark.promise("estimates")
def test_an_estimate_by_bytes_bounds_the_text_of_a_small_archive(world: World) -> None:
    packed = put_docx(world, "packed.docx", 2000)
    plans = Planner(world.context).plans()
    rough, exact = estimate(world.context, plans), count(world.context, plans)
    assert exact.chunks > 10 * packed.stat().st_size / 1000
    assert exact.chunks <= rough.chunks <= 3 * exact.chunks
    assert exact.tokens <= rough.tokens
    assert rough.uncertain == 0
    (Path(world.settings.source) / "page.pdf").write_bytes(b"%PDF-1.7 and no more")
    (Path(world.settings.source) / "broken.docx").write_bytes(b"PK\x03\x04 and no more")
    rough = estimate(world.context, Planner(world.context).plans())
    assert rough.uncertain == 2
    assert "2 compressed documents may contain more text than estimated" in reembedding_line(rough)
