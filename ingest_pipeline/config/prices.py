"""Reads the prices of embedding models and enrichers from the configuration. No price is built in or guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Price

_AMOUNT = r"\d+(?:\.\d+)?"
_PRICE = re.compile(
    rf"(?P<model>\S+)\s+(?P<amount>{_AMOUNT})(?:/(?P<in_batch>{_AMOUNT}))?\s+(?P<currency>[A-Z]{{3}})\s+"
    r"(?P<as_of>\d{4}-\d\d-\d\d)"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    variable: str
    noun: str
    remedy: str


_MODELS = _Kind(
    "INGEST_EMBEDDING_PRICES",
    "a model",
    "Write it like `text-embedding-3-small 0.02 USD 2026-11-01`, with the price of batch jobs as in `0.02/0.01`. "
    "Separate several prices by semicolons.",
)
_ENRICHERS = _Kind(
    "INGEST_ENRICHER_PRICES",
    "an enricher",
    "Write it like `my_package.enrichers.Summary 0.60 USD 2026-11-01`. Separate several prices by semicolons.",
)


def read_prices(text: str) -> tuple[Price, ...]:
    """Parse the prices of INGEST_EMBEDDING_PRICES, separated by semicolons.

    Args:
        text: For example ``text-embedding-3-small 0.02 USD 2026-11-01``: model, price of a million tokens, currency,
            and the day on which the price was read. The price at the Batch endpoint may follow the other, as in
            ``0.02/0.01``.

    Raises:
        ConfigurationError: The text has another form, or names a model twice.
    """
    return _read_all(text, _MODELS)


def read_enricher_prices(text: str) -> tuple[Price, ...]:
    """Parse the prices of INGEST_ENRICHER_PRICES, separated by semicolons.

    Args:
        text: For example ``my_package.enrichers.Summary 0.60 USD 2026-11-01``: dotted path of the class, price of a
            million of the tokens that the enricher reports, currency, and the day on which the price was read.

    Raises:
        ConfigurationError: The text has another form, or names an enricher twice.
    """
    prices = _read_all(text, _ENRICHERS)
    for price in prices:
        if price.per_million_tokens_in_batch is not None:
            raise ConfigurationError(
                f"INGEST_ENRICHER_PRICES has two prices of {price.model}, but enrichers have no batch jobs",
                "Keep one price.",
            )
    return prices


def price_of(model: str, prices: tuple[Price, ...]) -> Price | None:
    """The price of a model, None if none is configured."""
    return next((price for price in prices if price.model == model), None)


def _read_all(text: str, kind: _Kind) -> tuple[Price, ...]:
    prices = tuple(_read(entry.strip(), kind) for entry in text.split(";") if entry.strip())
    if len({price.model for price in prices}) < len(prices):
        raise ConfigurationError(f"{kind.variable} names {kind.noun} twice", "Keep one price for each.")
    return prices


def _read(entry: str, kind: _Kind) -> Price:
    found = _PRICE.fullmatch(entry)
    try:
        if found is None:
            raise ValueError  # noqa: TRY301  the one message serves both
        as_of = date.fromisoformat(found["as_of"])
    except ValueError as error:
        raise ConfigurationError(
            f"{kind.variable} contains {entry!r}, which is not {kind.noun}, a price of a million tokens, "
            "a currency and the date of the price list",
            kind.remedy,
        ) from error
    in_batch = found["in_batch"]
    return Price(
        found["model"],
        Decimal(found["amount"]),
        found["currency"],
        as_of,
        None if in_batch is None else Decimal(in_batch),
    )
