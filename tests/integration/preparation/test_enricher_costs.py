"""What enrichers of the user cost: as they report it or by a configured price, counted once, whatever a run does."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres.catalog import history, reports
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.ledger.embedding_cache import Cost
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.servers.embedding_server import TEST_MODEL
from tests.support.world import World

COSTLY = "tests.support.user_code.Costly"
PRICE = f"{COSTLY} 5 USD 2026-11-02"


def costly(world: World, calls: Path, *, prices: str = "", model_price: str = "", **arguments: object) -> World:
    """The same corpus with an enricher that is billed for each call."""
    enricher = {"class": COSTLY, "arguments": {"calls": str(calls), **arguments}}
    options = {"enricher": enricher, "enricher_prices": prices, "embedding_prices": model_price}
    return World(world.database, world.settings.replace(**options), world.embeddings)


def costs(world: World) -> list[Cost]:
    """Costs of the corpus, without the tokens of embedding that have no price."""
    with world.database.transaction() as connection:
        found = embedding_cache.costs(connection, generation=world.corpus.generation)
    return [cost for cost in found if cost.amount is not None]


def test_the_configured_price_applies_to_the_tokens_that_an_enricher_reports(world: World, tmp_path: Path) -> None:
    found = costly(world, tmp_path / "calls", prices=PRICE, tokens=300)
    for name in ("a", "b"):
        found.put(f"{name}.txt", f"words of {name}")
    found.ingest()
    assert costs(found) == [Cost(600, "USD", date(2026, 11, 2), Decimal(600 * 5) / 1_000_000)]
    with found.database.transaction() as connection:
        totals = reports.totals(connection, found.corpus.generation)
        publication, *_ = history.publication_history(connection, found.corpus.generation, 5)
    assert (totals["enricher_tokens"], totals["enricher_requests"]) == (600, 2)
    assert (publication.enricher_tokens, publication.enricher_requests) == (600, 2)
    assert publication.enricher_costs == {"USD": pytest.approx(0.003)}
    assert totals["tokens"] == publication.tokens == found.embeddings.tokens


@pytest.mark.promise("billed")
def test_a_cost_that_an_enricher_reports_wins_over_the_price(world: World, tmp_path: Path) -> None:
    found = costly(world, tmp_path / "calls", prices=PRICE, cost="0.125")
    found.put("a.txt", "some words")
    found.ingest()
    assert costs(found) == [Cost(100, "EUR", None, Decimal("0.125"))]


@pytest.mark.promise("billed")
@pytest.mark.parametrize(
    ("text", "problem"),
    [("raise", "raised BilledError: the answer is cut off"), ("invalid", "returned the column 'value'")],
)
def test_what_an_enricher_was_billed_before_it_failed_is_counted(world: World, text: str, problem: str) -> None:
    settings = world.settings.replace(enricher="tests.support.user_code.Overcharged")
    found = World(world.database, settings, world.embeddings)
    found.put("a.txt", text)
    found.put("b.txt", "some words")
    summary = found.ingest()
    assert problem in str(summary.failed["a.txt"][1])
    assert costs(found) == [Cost(140, "EUR", None, Decimal("0.5"))]
    found.check()


def test_what_was_billed_for_a_chunk_before_it_failed_is_counted(world: World) -> None:
    settings = world.settings.replace(enricher="tests.support.user_code.Overcharged", chunk_columns={"value": "string"})
    found = World(world.database, settings, world.embeddings)
    found.put("a.md", "# raise\n\nsome words\n")
    summary = found.ingest()
    assert "which raised BilledError" in str(summary.failed["a.md"][1])
    assert costs(found) == [Cost(140, "EUR", None, Decimal("0.5"))]


def test_a_cost_without_tokens_counts(world: World, tmp_path: Path) -> None:
    found = costly(world, tmp_path / "calls", tokens=0, cost="0.5")
    found.put("a.txt", "some words")
    found.put("b.txt", "more words")
    found.ingest()
    assert costs(found) == [Cost(0, "EUR", None, Decimal("1.0"))]


def test_costs_of_embedding_and_of_enrichers_at_one_price_day_are_added(world: World, tmp_path: Path) -> None:
    model = f"{TEST_MODEL} 20 USD 2026-11-02"
    found = costly(world, tmp_path / "calls", prices=PRICE, model_price=model, tokens=300)
    found.put("a.txt", "some words")
    found.ingest()
    tokens = found.embeddings.tokens
    assert costs(found) == [
        Cost(300 + tokens, "USD", date(2026, 11, 2), Decimal(300 * 5 + tokens * 20) / 1_000_000),
    ]


def test_tokens_without_a_price_are_shown_without_a_cost(world: World, tmp_path: Path) -> None:
    found = costly(world, tmp_path / "calls", tokens=300)
    found.put("a.txt", "some words")
    found.ingest()
    with found.database.transaction() as connection:
        (unpriced,) = embedding_cache.costs(connection, generation=found.corpus.generation)
    assert unpriced == Cost(300 + found.embeddings.tokens, None, None, None)


@pytest.mark.promise("billed")
@pytest.mark.parametrize(
    "place",
    [
        Place(Boundary.RESULT_RECORDED, "after"),
        Place(Boundary.BATCH_SENT, "before"),
        Place(Boundary.LANCE_COMMIT, "after"),
    ],
    ids=str,
)
def test_a_death_counts_a_recorded_cost_once(world: World, tmp_path: Path, place: Place) -> None:
    found = costly(world, tmp_path / "calls", cost="0.5")
    assert found.corpus
    found.put("a.txt", "some words")
    assert Child(crash_jobs.ingest, found.address, kill_at=place).outcome().killed
    assert costs(found) == [Cost(100, "EUR", None, Decimal("0.5"))]
    found.recover()
    found.ingest()
    assert costs(found) == [Cost(100, "EUR", None, Decimal("0.5"))]


def test_a_price_of_a_class_that_is_no_enricher_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"price of another\.Enricher, which `enricher` does not name"):
        costly(world, tmp_path / "calls", prices="another.Enricher 5 USD 2026-11-02")
