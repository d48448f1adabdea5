"""The protocol of a chunker of the user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest_pipeline.types import TextPiece


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """The extracted text of a document, as a chunker gets it."""

    key: str
    """Path under the source prefix."""
    text: str
    pieces: Sequence[TextPiece]
    """The same text in the pieces that its parser returned."""
    size: int
    """The option `chunk_size`: characters of a chunk, at most."""
    overlap: int
    """The option `chunk_overlap`: characters that a chunk may repeat of the one before it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Where a chunk begins and ends in the extracted text."""

    start: int
    """Offset of its first character, in code points."""
    end: int
    """Offset after its last character."""
    heading: tuple[str, ...] | None = None
    """Path of headings above it, outermost first. None: headings are found in the text."""
    text: str | None = None
    """Its text, if the chunker wants it compared with the extracted text."""


class Chunker(Protocol):
    """A chunker of the user, instead of the built-in one. It cuts the documents of all formats.

    It runs in a child process without network and secrets, and with limits on memory and time. It may have one more
    attribute: `seconds`, the time for one document, 120 if absent.
    """

    @property
    def fingerprint(self) -> str:
        """A text that changes whenever the same text may be cut at other places, arguments included."""
        ...

    def chunks(self, document: ExtractedDocument) -> Iterable[Span]:
        """Cut a document. Spans ascend and are no longer than `size`; blank ones are dropped.

        Any exception fails this document alone.
        """
        ...
