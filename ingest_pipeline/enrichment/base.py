"""The protocol of an enricher of the user."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
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


class BilledError(Exception):
    """Raised by an enricher that failed although a paid API billed it. The arguments are those of an `Enrichment`."""

    def __init__(
        self, message: str, usage: Usage | None = None, cost: Decimal | None = None, currency: str | None = None
    ) -> None:
        super().__init__(message)
        self.usage = usage or Usage()
        self.cost = cost
        self.currency = currency


@dataclass(frozen=True, slots=True)
class EnrichableChunk:
    """A chunk that an enricher gets. Its columns depend on nothing else, so it keeps them when it moves."""

    text: str
    heading: str | None
    """The headings above it, outermost first, separated by ` > `. None: there is none."""


@dataclass(frozen=True, slots=True)
class ChunkEnrichment:
    """What an enricher found of some chunks, and the usage that it was billed for."""

    columns: Sequence[Mapping[str, object]]
    """The columns of each chunk, in the order of the chunks."""
    usage: Usage = field(default_factory=Usage)
    """See `Enrichment`."""
    cost: Decimal | None = None
    """See `Enrichment`."""
    currency: str | None = None
    """See `Enrichment`."""


class Enricher(Protocol):
    """The protocol of an enricher: it computes columns of a document.

    It runs in a child process with the environment and the network of the run, because it may call an API. It may have
    two more attributes: `seconds`, the time for one call, 120 if absent; and `durable`, true if a result costs
    money or minutes: then results are kept in Postgres, by the text's hash and the fingerprint, before they are used.
    A class may have the method of a `ChunkEnricher` too.
    """

    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the same document may get other columns, arguments included."""
        ...

    def enrich(
        self, document: EnrichableDocument
    ) -> Mapping[str, object] | Enrichment | Awaitable[Mapping[str, object] | Enrichment]:
        """Compute the columns. May be a coroutine function.

        Any exception fails this document alone. A `BilledError` says what was billed nevertheless.
        """
        ...


class ChunkEnricher(Protocol):
    """The protocol of an enricher of chunks: it computes the columns that `chunk_columns` declares.

    It runs like an `Enricher`, and may have the same attributes.
    """

    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the same chunk may get other columns, arguments included."""
        ...

    def enrich_chunks(
        self, chunks: Sequence[EnrichableChunk]
    ) -> Sequence[Mapping[str, object]] | ChunkEnrichment | Awaitable[Sequence[Mapping[str, object]] | ChunkEnrichment]:
        """Compute the columns of each chunk, in the same order. May be a coroutine function.

        The chunks are of one document: at most 64, without those whose results are recorded. Any exception fails this
        document alone.
        """
        ...
