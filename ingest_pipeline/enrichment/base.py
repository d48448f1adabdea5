"""The protocol of an enricher of the user."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from ingest_pipeline.types import Usage


@dataclass(frozen=True, slots=True)
class EnrichableDocument:
    """The document that an enricher gets."""

    key: str
    """Path under the source prefix. Empty for a durable enricher, whose result must depend on the rest alone."""
    text: str
    """The whole extracted text."""
    columns: Mapping[str, object]
    """What the parser and the enrichers before this one found."""


@dataclass(frozen=True, slots=True)
class Enrichment:
    """What an enricher found, and the usage that it was billed for."""

    columns: Mapping[str, object]
    """Texts, numbers, truth values, dates, or lists of them. They replace columns of the same name."""
    usage: Usage = field(default_factory=Usage)
    """Tokens and requests that a paid API billed. They count for the limits on tokens."""
    cost: Decimal | None = None
    """What the call cost, if that is known. None: the tokens at the price that `enricher_prices` names."""
    currency: str | None = None
    """Of the cost: three letters, as in ISO 4217."""


class Enricher(Protocol):
    """The protocol of an enricher: it computes columns of a document.

    It runs in a child process with the environment and the network of the run, because it may call an API. It may have
    two more attributes: `seconds`, the time for one document, 120 if absent; and `durable`, true if a result costs
    money or minutes: then results are kept in Postgres, by the text's hash and the fingerprint, before they are used.
    """

    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the same document may get other columns, arguments included."""
        ...

    def enrich(
        self, document: EnrichableDocument
    ) -> Mapping[str, object] | Enrichment | Awaitable[Mapping[str, object] | Enrichment]:
        """Compute the columns. May be a coroutine function. Any exception fails this document alone."""
        ...
