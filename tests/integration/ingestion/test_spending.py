"""What was spent, by document, saga, run and corpus; and what a plan says it will cost."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from ingest_pipeline.cli.demo.sample_documents import write_python_topics
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.estimate import count, estimate
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger import embedding_cache
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.servers.embedding_server import POISON, TEST_MODEL, Fault
from tests.support.world import World, paragraphs

PRICE = f"{TEST_MODEL} 2.50 EUR 2026-11-01"


def totals(world: World) -> dict[str, Any]:
    with world.database.transaction() as connection:
        return reports.totals(connection, world.corpus.generation)


def costs(world: World) -> list[embedding_cache.Cost]:
    with world.database.transaction() as connection:
        return embedding_cache.costs(connection, generation=world.corpus.generation)


def shares(world: World) -> dict[str, Any]:
    """What the documents' rows add up to."""
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT sum(tokens)::int AS tokens, sum(embedded)::int AS embedded, sum(requests)::int AS requests, "
            "min(seconds) AS quickest FROM ingest_pipeline.document"
        ).fetchone()
    assert row is not None
    return dict(row)


def test_the_documents_shares_add_up_to_what_the_server_billed(world: World) -> None:
    for number in range(7):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 1 + 3 * number))
    world.ingest()
    spent, found = totals(world), shares(world)
    assert spent["tokens"] == found["tokens"] == world.embeddings.tokens > 0
    assert spent["embedded"] == found["embedded"] == world.embeddings.embedded
    assert spent["requests"] == world.embeddings.requests <= found["requests"]
    assert found["quickest"] > 0


def test_retries_are_distinguished_from_requests(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.embeddings.fail_next(Fault.SERVER_ERROR, times=2)
    world.ingest()
    spent = totals(world)
    # The first text goes alone, since the endpoint was never seen.
    assert (spent["requests"], spent["retries"]) == (4, 2)


def test_cached_vectors_are_billed_to_no_document(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    before = totals(world)["tokens"]
    world.put("copy.txt", paragraphs("alpha", 3))
    world.ingest()
    assert totals(world)["tokens"] == before
    with world.database.transaction() as connection:
        (copy,) = reports.history(connection, world.corpus.generation, "copy.txt", 1)
    assert (copy.tokens, copy.requests, copy.embedded, copy.cost) == (0, 0, 0, None)
    assert copy.cached > 0


def test_the_usage_of_failed_and_killed_sagas_counts(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 20))
    assert world.corpus
    place = Place(Boundary.BATCH_RECORDED, "after", 2)
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    world.recover()
    world.embeddings.wait_until_quiet()
    killed = totals(world)["tokens"]
    at_crash = world.embeddings.tokens
    assert 0 < killed <= at_crash
    world.put("a.txt", f"{paragraphs('beta', 20)}\n\n{POISON} is refused by the API.")
    assert list(world.ingest().failed) == ["a.txt"]
    assert totals(world)["tokens"] == killed + world.embeddings.tokens - at_crash > killed


def test_a_saga_keeps_the_price_that_was_configured_when_it_began(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    free = world.embeddings.tokens
    world.settings = world.settings.replace(embedding_prices=PRICE)
    paying = World(world.database, world.settings, world.embeddings)
    world.put("b.txt", paragraphs("beta", 3))
    paying.ingest()
    priced, unpriced = costs(world)
    assert (priced.currency, priced.tokens) == ("EUR", world.embeddings.tokens - free)
    assert priced.amount == Decimal("2.50") * priced.tokens / 1_000_000
    assert (unpriced.currency, unpriced.amount, unpriced.tokens) == (None, None, free)


def test_without_a_price_no_cost_is_shown(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    assert estimate(world.context, Planner(world.context).plans()).cost is None
    world.ingest()
    assert [cost.amount for cost in costs(world)] == [None]


def test_an_exact_plan_predicts_the_embedded_texts(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 20))
    world.ingest()
    world.put("b.txt", paragraphs("alpha", 20) + "\n\n" + paragraphs("new", 4))
    world.put("empty.txt", "")
    plans = Planner(world.context).plans()
    before = world.embeddings.embedded, world.embeddings.requests, world.head
    foreseen = count(world.context, plans)
    assert (world.embeddings.embedded, world.embeddings.requests, world.head) == before
    assert foreseen.exact
    assert foreseen.measured
    world.ingest()
    assert world.embeddings.embedded - before[0] == foreseen.to_embed
    assert foreseen.chunks == len(world.chunks("b.txt"))


def test_an_estimate_by_bytes_is_near_what_pythons_topics_come_to(world: World) -> None:
    """Before anything was bought: chunks within a tenth. That a seventh of their text is not new, bytes do not say."""
    write_python_topics(Path(world.settings.source))
    plans = Planner(world.context).plans()
    rough, exact = estimate(world.context, plans), count(world.context, plans)
    assert not rough.measured
    assert rough.documents == exact.documents == len(plans)
    assert abs(rough.chunks - exact.chunks) <= exact.chunks / 10
    assert exact.to_embed <= rough.to_embed <= exact.to_embed * 1.25
    assert exact.tokens <= rough.tokens <= exact.tokens * 1.2


def test_an_estimate_learns_from_what_the_corpus_was_billed(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 12))
    world.ingest()
    world.put("b.txt", paragraphs("gamma", 12))
    foreseen = estimate(world.context, Planner(world.context).plans())
    before = world.embeddings.tokens
    world.ingest()
    embedded = world.embeddings.tokens - before
    assert foreseen.measured
    assert abs(foreseen.tokens - embedded) <= embedded / 10
