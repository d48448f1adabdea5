"""Prices are configuration with a date, and never guessed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from ingest_pipeline.config.prices import price_of, read_enricher_prices, read_prices
from ingest_pipeline.errors import ConfigurationError

SMALL = "text-embedding-3-small 0.02 USD 2026-11-01"


def test_prices_are_read_with_their_currency_and_day() -> None:
    small, large = read_prices(f"{SMALL}; text-embedding-3-large 0.13 EUR 2026-10-02;")
    assert (small.model, small.currency, small.as_of) == ("text-embedding-3-small", "USD", date(2026, 11, 1))
    assert large.per_million_tokens == Decimal("0.13")


def test_a_cost_has_no_rounding_error() -> None:
    (small,) = read_prices(SMALL)
    assert small.cost(150_000) == Decimal("0.003")


def test_batch_jobs_have_a_price_of_their_own() -> None:
    (small,) = read_prices("text-embedding-3-small 0.02/0.01 USD 2026-11-01")
    in_batch = small.in_batch()
    assert in_batch is not None
    assert (small.cost(1_000_000), in_batch.cost(1_000_000)) == (Decimal("0.02"), Decimal("0.01"))
    assert (in_batch.model, in_batch.currency, in_batch.as_of) == (small.model, small.currency, small.as_of)


def test_the_price_of_batch_jobs_is_not_guessed_from_the_other() -> None:
    (small,) = read_prices(SMALL)
    assert small.in_batch() is None


def test_a_model_without_a_price_has_none() -> None:
    assert price_of("another", read_prices(SMALL)) is None
    assert read_prices("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "0.02",
        "small 0.02 USD",
        "small 0.02 2026-11-01",
        "small -1 USD 2026-11-01",
        "small 0,02 USD 2026-11-01",
        "small 0.02/ USD 2026-11-01",
        "small 0.02/half USD 2026-11-01",
        "small 0.02 USD 2026-13-01",
        "small 0.02 dollars 2026-11-01",
        f"{SMALL};{SMALL}",
    ],
)
def test_a_malformed_price_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="INGEST_EMBEDDING_PRICES"):
        read_prices(text)


def test_a_price_of_an_enricher_names_its_class() -> None:
    (price,) = read_enricher_prices("my_package.Summary 0.60 USD 2026-11-01")
    assert (price.model, price.cost(2_000_000), price.as_of) == (
        "my_package.Summary",
        Decimal("1.20"),
        date(2026, 11, 1),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0.60", "which is not an enricher, a price"),
        ("my.Summary 0.60/0.30 USD 2026-11-01", "enrichers have no batch jobs"),
        ("a.B 1 USD 2026-11-01; a.B 2 USD 2026-11-01", "names an enricher twice"),
    ],
)
def test_a_malformed_price_of_an_enricher_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"INGEST_ENRICHER_PRICES .*{problem}"):
        read_enricher_prices(text)
