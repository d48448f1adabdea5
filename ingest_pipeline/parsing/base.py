"""The protocol of a parser of the user: the document that it gets, and the result that it returns.

The parsers of this package are in `built_in_parsers`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ingest_pipeline.types import TextPiece

__all__ = ["ParsedDocument", "Parser", "RawDocument", "TextPiece"]


@dataclass(frozen=True, slots=True)
class RawDocument:
    """The document that a parser gets."""

    key: str
    """Path under the source prefix. Empty for a durable parser, whose result must depend on the bytes alone."""
    content: bytes


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The result of a parser."""

    pieces: Iterable[TextPiece]
    """The text. The concatenated texts of the pieces are the extracted text, which is taken for Markdown."""
    columns: Mapping[str, object] = field(default_factory=dict[str, object])
    """Values of the document's columns: texts, numbers, truth values, dates, or lists of them."""


class Parser(Protocol):
    """A parser of the user. It takes precedence over the built-in formats for its suffixes.

    It runs in a child process without network and secrets, and with limits on memory and time. It may have two more
    attributes: `seconds`, the time for one document, 120 if absent; and `durable`, true if a result costs minutes: then
    results are kept in Postgres, by the bytes' hash and the fingerprint.
    """

    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the same bytes may give another result, arguments included."""
        ...

    @property
    def suffixes(self) -> Collection[str]:
        """Ends of the keys that it parses, such as `.eml`, in any case."""
        ...

    def parse(self, document: RawDocument) -> ParsedDocument:
        """Extract the text. Any exception fails this document alone."""
        ...
