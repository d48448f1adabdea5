"""Pages and headings are in both stores and in hits; a header is embedded and indexed and not shown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import LiteralString

import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.maintenance.indexing import update_indices
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.search import Hit, search
from ingest_pipeline.types import SearchMode, text_hash
from tests.support.world import World

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]


def manual(titles: Sequence[str]) -> str:
    """A handbook with a section of several chunks under each title."""
    chance = random.Random(3)

    def paragraph(title: int, number: int) -> str:
        return f"Part {title}-{number}. " + " ".join(chance.choices(WORDS, k=100)) + "."

    sections = [
        f"## {title}\n\n" + "\n\n".join(paragraph(place, number) for number in range(4))
        for place, title in enumerate(titles)
    ]
    return "# Handbook\n\nAn introduction.\n\n" + "\n\n".join(sections) + "\n"


TITLES = ["Travel", "Expenses", "Holidays", "Equipment"]


def ask(
    world: World, question: str, mode: SearchMode = "text", limit: int = 5, expand: Expand | None = None, **more: object
) -> list[Hit]:
    async def run() -> list[Hit]:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            return await search(world.corpus, embedder, question, limit, mode=mode, expand=expand, **more)  # type: ignore[arg-type]

    return asyncio.run(run())


@pytest.fixture
def handbook(world: World) -> World:
    world.put("handbook.md", manual(TITLES))
    world.ingest()
    return world


@pytest.fixture
def headed(world: World) -> World:
    world.settings = world.settings.replace(heading_context=True)
    world.put("handbook.md", manual(TITLES))
    world.ingest()
    return world


def test_both_stores_and_hits_have_the_headings(handbook: World) -> None:
    assert {chunk.heading for chunk in handbook.chunks("handbook.md")} == {
        "Handbook",
        *(f"Handbook > {title}" for title in TITLES),
    }
    hit = ask(handbook, "2-3")[0]
    assert (hit.heading, hit.page, hit.last_page) == ("Handbook > Holidays", None, None)
    assert handbook.audit().violations == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ingest_pipeline.chunk SET heading = 'Other' WHERE ordinal = 3",
        "UPDATE ingest_pipeline.chunk SET heading = NULL WHERE ordinal = 3",
        "UPDATE ingest_pipeline.chunk SET page = 1, last_page = 1 WHERE ordinal = 3",
    ],
    ids=["another heading", "no heading", "another page"],
)
def test_a_place_that_differs_between_the_stores_is_a_violation(handbook: World, change: LiteralString) -> None:
    with handbook.database.transaction() as connection:
        connection.execute(change)
    (violation,) = handbook.audit().violations
    assert (violation.invariant, violation.document) == ("texts match", "handbook.md")


def test_a_rollback_brings_headings_back(handbook: World) -> None:
    before = [(chunk.heading, chunk.text_hash) for chunk in handbook.chunks("handbook.md")]
    version = handbook.head
    handbook.put("handbook.md", manual(["Journeys", *TITLES[1:]]))
    handbook.ingest()
    assert [(chunk.heading, chunk.text_hash) for chunk in handbook.chunks("handbook.md")] != before
    handbook.roll_back(version)
    assert [(chunk.heading, chunk.text_hash) for chunk in handbook.chunks("handbook.md")] == before
    assert handbook.audit().violations == []


def test_without_a_header_the_text_alone_is_embedded_and_found(handbook: World) -> None:
    rows = handbook.corpus.table.rows(handbook.head, ["text", "text_hash", "header"]).to_pylist()
    assert all(row["text_hash"] == str(text_hash(row["text"])) and row["header"] is None for row in rows)
    assert {"Holidays" in hit.text for hit in ask(handbook, "holidays", limit=10)} == {True}


def test_a_header_is_embedded_and_found_and_not_shown(headed: World) -> None:
    rows = headed.corpus.table.rows(headed.head, ["text", "text_hash", "header"]).to_pylist()
    assert all(row["text_hash"] == str(text_hash(f"{row['header']}\n\n{row['text']}")) for row in rows)
    assert headed.audit().violations == []
    for _ in range(2):
        hits = ask(headed, "holidays", limit=10)
        assert len(hits) == sum(row["header"] == "Handbook > Holidays" for row in rows) > 2
        assert sum("Holidays" in hit.text for hit in hits) == 1
        update_indices(headed.corpus)


@pytest.mark.promise("edits-stay-local")
def test_a_changed_heading_embeds_its_section_again_and_nothing_else(headed: World) -> None:
    section = sum(chunk.heading == "Handbook > Expenses" for chunk in headed.chunks("handbook.md"))
    before = headed.embeddings.embedded
    headed.put("handbook.md", manual(["Travel", "Costs", "Holidays", "Equipment"]))
    headed.ingest()
    assert headed.embeddings.embedded - before == section
    headed.put("handbook.md", manual(["Travel", "Costs", "Holidays", "Equipment"]).replace("Part 2-2.", "Part two."))
    headed.ingest()
    assert headed.embeddings.embedded - before == section + 1
    assert headed.audit().violations == []


def test_no_text_that_the_model_gets_exceeds_its_limit(world: World) -> None:
    world.settings = world.settings.replace(embedding_max_tokens=150, document_prefix="passage: ", heading_context=True)
    world.put("handbook.md", manual(TITLES))
    world.put("chinese.md", "# 标题\n\n" + "这是一个没有空格的长句子。" * 60)
    world.ingest()
    assert len(world.chunks("handbook.md")) > 80
    assert {text.startswith("passage: Handbook") for text in world.embeddings.texts} == {True, False}
    assert max(len(text.encode()) for text in world.embeddings.texts) <= 150
    assert world.audit().violations == []


def test_switching_headers_on_embeds_what_has_headings(handbook: World) -> None:
    before = handbook.embeddings.embedded
    handbook.settings = handbook.settings.replace(heading_context=True)
    handbook._context = open_context(handbook.database, handbook.settings)  # pyright: ignore[reportPrivateUsage]
    handbook.ingest()
    assert handbook.embeddings.embedded - before == len(handbook.chunks("handbook.md"))
    assert handbook.audit().violations == []


def test_neighbours_and_sections_are_the_text_of_the_document(handbook: World) -> None:
    text = manual(TITLES)
    hit = ask(handbook, "2-2", limit=1, expand="neighbours")[0]
    assert hit.passage is not None
    assert hit.passage.text.split() == text[hit.passage.start_offset : hit.passage.end_offset].split()
    assert hit.passage.start_offset < hit.start_offset
    assert hit.passage.end_offset > hit.end_offset
    hit = ask(handbook, "2-2", limit=1, expand="section")[0]
    assert hit.passage is not None
    assert text[hit.passage.start_offset :].startswith("## Holidays")
    assert text[hit.passage.end_offset :].lstrip().startswith("## Equipment")
    assert hit.passage.text.split() == text[hit.passage.start_offset : hit.passage.end_offset].split()


def test_an_expanded_search_reads_the_catalog_rows_of_its_hits_once(
    handbook: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Sequence[str] | None] = []
    original = documents.documents_at

    def counting(
        connection: Connection, generation: str, version: int, keys: Sequence[str] | None = None
    ) -> list[DocumentRow]:
        read.append(keys)
        return original(connection, generation, version, keys)

    monkeypatch.setattr(documents, "documents_at", counting)
    assert ask(handbook, "2-2", limit=1, expand="section")[0].passage is not None
    assert read == [["handbook.md"]]


def test_scores_of_both_kinds_are_beside_the_fused_one(handbook: World) -> None:
    for hit in ask(handbook, "Part 2-2", "hybrid", limit=20):
        (alone,) = [one for one in ask(handbook, "Part 2-2", "vector", limit=100) if one.id == hit.id]
        assert hit.similarity == pytest.approx(alone.score, abs=1e-5)
        by_words = {one.id: one.score for one in ask(handbook, "Part 2-2", limit=100)}
        assert hit.bm25 is None or hit.bm25 == pytest.approx(by_words[hit.id])


def test_a_reranker_decides_the_order(handbook: World) -> None:
    class Backwards:
        async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
            assert question == "Part 2-2"
            assert all(text.startswith("Handbook") for text in texts)
            return [float("Part 3-3." in text) for text in texts]

    hits = ask(handbook, "Part 2-2", "hybrid", limit=2, reranker=Backwards())
    assert [("Part 3-3." in hit.text, hit.rerank_score) for hit in hits] == [(True, 1.0), (False, 0.0)]
