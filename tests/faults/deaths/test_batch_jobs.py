"""A batch job is submitted exactly once and its vectors are collected, whichever process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import EmbeddingResponseError, EmbeddingUnavailableError, SpendingLimitError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.batch import batch_jobs
from ingest_pipeline.ingestion.batch.batch_client import BatchClient
from ingest_pipeline.ingestion.estimate import estimate
from ingest_pipeline.planning import source_comparison
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger import batch_jobs as batch_job_rows
from ingest_pipeline.postgres.ledger import embedding_cache
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import COLLECTION, FIRST_SUBMISSION, SUBMISSION, places
from tests.support.servers.batch_api import BatchServer
from tests.support.servers.embedding_server import POISON, TEST_MODEL
from tests.support.world import World, collect_all, mark_served, paragraphs, submit_all

pytestmark = pytest.mark.promise("batch-jobs")

TEXT = paragraphs("alpha", 20)


@pytest.fixture
def embeddings() -> Generator[BatchServer]:
    with BatchServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_jobs, "_LISTED_AFTER", timedelta(0))


@pytest.fixture(autouse=True)
def _known_endpoint(world: World) -> None:
    mark_served(world.database, world.embedding_settings)


def api(world: World) -> BatchServer:
    assert isinstance(world.embeddings, BatchServer)
    return world.embeddings


def submit(world: World) -> int:
    return len(submit_all(world.context, world.embedding_settings))


def collect(world: World) -> list[batch_jobs.Collected]:
    return collect_all(world.context, world.embedding_settings)


def batch_states(world: World) -> list[str]:
    """States of the sagas of batch jobs, oldest first."""
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT state FROM ingest_pipeline.saga WHERE kind = 'batch' AND generation = %s ORDER BY started_at",
            (world.corpus.generation,),
        )
        return [row["state"] for row in rows]


def check_nothing_was_bought_twice(world: World) -> None:
    assert max(world.embeddings.texts.values()) == 1
    assert world.audit().violations == []


def test_collected_vectors_are_published_by_an_ordinary_run_that_embeds_nothing(world: World) -> None:
    world.put("a.txt", TEXT)
    world.put("b.txt", TEXT + "\n\n" + paragraphs("beta", 3))
    assert submit(world) == 1
    assert collect(world) == []
    assert batch_jobs.waiting_keys(world.context) == {"a.txt", "b.txt"}
    api(world).finish()
    (done,) = collect(world)
    assert (done.collected, done.error) == (done.texts, None)
    assert batch_jobs.waiting_keys(world.context) == set()
    assert world.recover().abandoned == []
    world.sweep()
    assert batch_states(world) == ["completed"]
    (publication,) = world.ingest().publications
    assert world.embeddings.requests == 0
    assert len(publication.documents) == 2
    assert world.embeddings.embedded == done.texts == len(world.embeddings.texts)
    check_nothing_was_bought_twice(world)
    world.check_nothing_left()


def test_one_batch_job_has_the_texts_of_several_pages_of_documents(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_comparison, "MAX_PAGE_DOCUMENTS", 1)
    for name in ("a", "b", "c"):
        world.put(f"{name}.txt", paragraphs(name, 2))
    assert BatchClient(world.embedding_settings).submit(world.context) == 1
    assert batch_jobs.waiting_keys(world.context) == {"a.txt", "b.txt", "c.txt"}


def test_texts_of_batch_jobs_are_counted_at_the_batch_price_and_others_at_the_normal_price(world: World) -> None:
    world.settings = world.settings.replace(embedding_prices=f"{TEST_MODEL} 2.50/1.20 EUR 2026-11-01")
    world.put("a.txt", TEXT)
    foreseen = estimate(world.context, Planner(world.context).plans())
    assert foreseen.cost_in_batch == Decimal("1.20") * foreseen.tokens / 1_000_000
    assert foreseen.cost == Decimal("2.50") * foreseen.tokens / 1_000_000
    submit(world)
    api(world).finish()
    collect(world)
    in_batch = world.embeddings.tokens
    world.put("b.txt", paragraphs("beta", 3))
    world.ingest()
    with world.database.transaction() as connection:
        (cost,) = embedding_cache.costs(connection, generation=world.corpus.generation)
        (shown,) = batch_job_rows.recent(connection, world.corpus.generation, 9)
    at_once = world.embeddings.tokens - in_batch
    assert cost.tokens == in_batch + at_once
    assert min(in_batch, at_once) > 0
    assert cost.amount == (Decimal("1.20") * in_batch + Decimal("2.50") * at_once) / 1_000_000
    assert (shown["tokens"], shown["currency"]) == (in_batch, "EUR")
    assert shown["cost"] == round(Decimal("1.20") * in_batch / 1_000_000, 4)


def test_batch_jobs_without_a_batch_price_have_no_cost(world: World) -> None:
    world.settings = world.settings.replace(embedding_prices=f"{TEST_MODEL} 2.50 EUR 2026-11-01")
    world.put("a.txt", TEXT)
    submit(world)
    api(world).finish()
    collect(world)
    with world.database.transaction() as connection:
        (cost,) = embedding_cache.costs(connection, generation=world.corpus.generation)
    assert (cost.tokens, cost.amount, cost.currency) == (world.embeddings.tokens, None, None)


def test_texts_in_a_batch_job_or_with_a_vector_are_not_submitted_again(world: World) -> None:
    world.put("a.txt", TEXT)
    assert submit(world) == 1
    world.put("b.txt", TEXT)
    assert submit(world) == 0
    api(world).finish()
    collect(world)
    assert submit(world) == 0
    world.ingest()
    world.put("c.txt", TEXT)
    assert submit(world) == 0
    check_nothing_was_bought_twice(world)


@pytest.mark.parametrize("status", ["completed", "expired"])
def test_texts_missing_from_the_output_are_embedded_by_the_next_run(world: World, status: str) -> None:
    world.put("a.txt", TEXT)
    submit(world)
    api(world).finish(status, without=("0", "2"))
    (done,) = collect(world)
    assert (done.texts - done.collected, done.error) == (12, f"12 of {done.texts} vectors were not returned: {status}")
    world.ingest()
    assert world.embeddings.requests == 2
    assert world.audit().violations == []


def test_a_batch_job_without_output_has_failed_and_blocks_no_document(world: World) -> None:
    world.put("a.txt", TEXT)
    submit(world)
    api(world).finish("failed", without=tuple(map(str, range(9))))
    (done,) = collect(world)
    assert done.collected == 0
    assert batch_jobs.waiting_keys(world.context) == set()
    world.ingest()
    assert len(world.chunks("a.txt")) == done.texts


def test_a_request_that_the_api_refuses_fails_alone(world: World) -> None:
    world.put("a.txt", TEXT)
    world.put("bad.txt", f"{POISON} is refused by the API.")
    submit(world)
    api(world).finish()
    (done,) = collect(world)
    assert 0 < done.collected < done.texts
    assert list(world.ingest().failed) == ["bad.txt"]


def test_a_batch_job_whose_answer_was_lost_is_found_at_the_api_and_not_submitted_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a.txt", TEXT)
    api(world).lose_next_answer = True
    with pytest.raises(EmbeddingUnavailableError):
        submit(world)
    assert submit(world) == 0
    api(world).finish()
    # Others' batches, so that the list has pages.
    for name in ("other_0", "other_1", "other_2"):
        api(world).batches[name] = {**api(world).batches["batch_0"], "id": name, "metadata": None}
    assert collect(world) == []  # its writer lives, and may be about to say so
    monkeypatch.setattr(batch_jobs, "_ABANDONED_AFTER", timedelta(0))
    (done,) = collect(world)
    assert done.collected == done.texts
    world.ingest()
    check_nothing_was_bought_twice(world)


@pytest.mark.parametrize("place", places(SUBMISSION), ids=str)
def test_submitting_a_batch_job_may_die_anywhere(world: World, place: Place) -> None:
    assert world.corpus
    world.put("a.txt", TEXT)
    assert Child(crash_jobs.submit_missing, world.address, kill_at=place).outcome().killed
    api(world).finish()
    collect(world)
    submit(world)
    api(world).finish()
    collect(world)
    world.ingest()
    assert world.embeddings.requests == 0
    check_nothing_was_bought_twice(world)
    world.recover()
    assert set(batch_states(world)) == {"completed"}
    world.check_nothing_left()


@pytest.mark.parametrize("place", places(FIRST_SUBMISSION), ids=str)
def test_the_first_request_to_an_endpoint_may_die_anywhere(world: World, place: Place) -> None:
    assert world.corpus
    world.put("a.txt", TEXT)
    with world.database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.served_embedding")
    assert Child(crash_jobs.submit_missing, world.address, kill_at=place).outcome().killed
    has_answer = place.boundary is Boundary.COMPLETED or place == Place(Boundary.BATCH_RECORDED, "after", 1)
    has_ended = place == Place(Boundary.COMPLETED, "after", 1)
    assert batch_states(world) == ["completed" if has_ended else "preparing"]
    assert len(world.recover().abandoned) == (not has_ended)
    world.sweep()
    assert batch_states(world) == ["completed" if has_ended else "abandoned"]
    submit(world)
    api(world).finish()
    collect(world)
    world.ingest()
    assert set(batch_states(world)) <= {"abandoned", "completed"}
    assert world.audit().violations == []
    assert not has_answer or max(world.embeddings.texts.values()) == 1
    world.check_nothing_left()


@pytest.mark.parametrize("place", places(COLLECTION), ids=str)
def test_collecting_a_batch_job_may_die_anywhere(world: World, place: Place) -> None:
    world.put("a.txt", TEXT)
    submit(world)
    api(world).finish()
    assert Child(crash_jobs.collect_vectors, world.address, kill_at=place).outcome().killed
    collect(world)
    world.ingest()
    assert world.embeddings.requests == 0
    check_nothing_was_bought_twice(world)
    world.check_nothing_left()


def test_two_processes_that_submit_the_same_texts_at_once_submit_them_once(world: World) -> None:
    world.put("a.txt", TEXT)
    plans = Planner(world.context).plans()

    async def both() -> int:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            submitted = await asyncio.gather(*(batch_jobs.submit(world.context, embedder, plans) for _ in range(2)))
        return sum(map(len, submitted))

    assert asyncio.run(both()) == 1
    check_nothing_was_bought_twice(world)


def give_up(world: World) -> None:
    """What a sensor does about an order of which the API knows nothing, from the thread of the API itself."""
    assert batch_jobs.waiting_keys(world.context)
    with ThreadPoolExecutor() as pool:
        pool.submit(collect, world).result()
    assert not batch_jobs.waiting_keys(world.context)


def test_a_batch_job_abandoned_while_its_texts_are_uploaded_is_not_created(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_jobs, "_ABANDONED_AFTER", timedelta(0))
    world.put("a.txt", TEXT)
    upload = BatchServer.upload

    def slowly(server: BatchServer, kind: str, body: bytes) -> dict[str, Any]:
        give_up(world)
        return upload(server, kind, body)

    monkeypatch.setattr(BatchServer, "upload", slowly)
    assert submit(world) == 0
    assert api(world).batches == {}
    assert batch_jobs.waiting_keys(world.context) == set()
    world.ingest()
    check_nothing_was_bought_twice(world)


def test_a_batch_job_abandoned_while_it_is_created_is_collected_nevertheless(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_jobs, "_ABANDONED_AFTER", timedelta(0))
    world.put("a.txt", TEXT)
    create = BatchServer.create

    def slowly(server: BatchServer, asked: dict[str, Any]) -> dict[str, Any]:
        give_up(world)
        return create(server, asked)

    monkeypatch.setattr(BatchServer, "create", slowly)
    assert submit(world) == 1
    assert batch_jobs.waiting_keys(world.context) == {"a.txt"}
    api(world).finish()
    (done,) = collect(world)
    assert done.collected == done.texts
    world.ingest()
    assert world.embeddings.requests == 0
    check_nothing_was_bought_twice(world)


@pytest.mark.promise("wrong-settings")
def test_a_new_endpoint_gets_one_text_before_a_batch_job_is_submitted(world: World) -> None:
    with world.database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.served_embedding")
    wrong = World(world.database, world.settings.replace(corpus="wrong", embedding_dimensions=33), world.embeddings)
    wrong.put("a.txt", TEXT)
    with pytest.raises(EmbeddingResponseError):
        submit(wrong)
    assert batch_states(wrong) == ["failed"]
    assert (api(world).batches, world.embeddings.embedded) == ({}, 1)
    assert submit(world) == 1
    assert batch_states(world) == ["completed", "completed"]
    assert world.embeddings.requests == 2
    api(world).finish()
    collect(world)
    world.ingest()
    assert world.embeddings.requests == 2
    assert sum(world.embeddings.texts.values()) == len(world.embeddings.texts) + 1


@pytest.mark.promise("billed")
def test_billed_tokens_of_unusable_batch_answers_are_recorded(world: World) -> None:
    world.put("a.txt", TEXT)
    assert submit(world) == 1
    api(world).finish()
    server = api(world)
    for name, content in server.files.items():
        if name.startswith("output-"):
            server.files[name] = content.replace(b'"index": 1', b'"index": 0', 1)
    (done,) = collect(world)
    assert done.collected < done.texts
    with world.database.transaction() as connection:
        spent = reports.totals(connection, world.corpus.generation)
    assert spent["tokens"] == world.embeddings.tokens
    assert spent["unusable_tokens"] > 0


def test_a_batch_job_over_a_limit_is_not_submitted(world: World) -> None:
    world.put("a.txt", TEXT)
    world.settings = world.settings.replace(max_tokens_per_day=100)
    with pytest.raises(SpendingLimitError, match="INGEST_MAX_TOKENS_PER_DAY"):
        submit(world)
    assert (api(world).batches, world.embeddings.embedded) == ({}, 0)
