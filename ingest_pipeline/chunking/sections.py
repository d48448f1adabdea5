"""Makes chunks of spans: each with its pages and headings, and no larger than the model takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ingest_pipeline.chunking.breaks import PARAGRAPH, WEAKER_BREAKS
from ingest_pipeline.chunking.headings import HeadingFinder, HeadingState, Timeline
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.types import Chunk, TextPiece, joined_headings

_ANY_INPUT: Final = ModelInput()


@dataclass(frozen=True, slots=True)
class SectionPlace:
    """What is known of the text before a window."""

    start: int
    """Where the window begins."""
    chunk_count: int
    last_begin: int
    """Where the last chunk begins."""
    context: str
    """The characters before the window that decide about headings."""
    headings: HeadingState


class Sections:
    """The pages and headings of the text that was read, as far back as chunks may still begin.

    Args:
        markdown: Whether headings are those of Markdown.
        model_input: What the model is sent with a chunk, and how much it takes.
        place: Where the first window begins. None: at the beginning of the document.
    """

    def __init__(
        self, *, markdown: bool, model_input: ModelInput = _ANY_INPUT, place: SectionPlace | None = None
    ) -> None:
        at = place or SectionPlace(0, 0, -1, "\n", HeadingState())
        self._input = model_input
        self._finder = HeadingFinder(markdown=markdown, start=at.start, context=at.context, state=at.headings)
        self._pieces = Timeline[tuple[int | None, tuple[str, ...] | None]]((None, None))
        self._headings = Timeline[tuple[str, ...]](self._finder.titles)
        self._count = at.chunk_count
        self._last_begin = at.last_begin

    def place(self, end: int) -> SectionPlace:
        """What is known at the end of the last window, except for the pages and headings of pieces."""
        return SectionPlace(end, self._count, self._last_begin, self._finder.context, self._finder.state)

    @property
    def chunk_count(self) -> int:
        """Number of chunks so far."""
        return self._count

    def texts(self, pieces: Iterable[TextPiece]) -> Iterator[str]:
        """The texts of the pieces, which may be read ahead of the chunks."""
        start = 0
        for piece in pieces:
            if piece.text:
                self._pieces.add(start, (piece.page, piece.heading))
                yield piece.text
                start += len(piece.text)

    def read(self, window: str) -> None:
        """Find the headings of the next window."""
        for offset, path in self._finder.read(window):
            self._headings.add(offset, path)

    def chunks(self, begin: int, text: str, new: int, headings: tuple[str, ...] | None = None) -> Iterator[Chunk]:
        """The chunk of a span, or several if the model does not take it as a whole. They are numbered in order.

        Args:
            begin: Offset of the text.
            text: The text, not blank.
            new: Offset of its first character that the chunk before it does not have.
            headings: The path of headings above it. None: that of the document.
        """
        if begin <= self._last_begin:  # the chunk before it was divided, and its last part is shorter than the overlap
            text, begin = text[new - begin :], new
        chunk = self._chunk(begin, text, new, headings)
        if len(text) == 1 or self._input.fits(chunk.embedded_text):
            yield chunk
            self._count += 1
            self._last_begin = begin
            return
        middle = _middle(text)
        for start, part in ((0, text[:middle]), (middle, text[middle:])):
            words = part.strip()
            at = begin + start + (part.index(words) if words else 0)
            if at + len(words) > new and words:  # the chunk before it has the rest
                yield from self.chunks(at, words, max(at, new), headings)

    def _chunk(self, begin: int, text: str, new: int, headings: tuple[str, ...] | None) -> Chunk:
        end = begin + len(text)
        page, _ = self._pieces.at(begin)
        last_page, _ = self._pieces.at(end - 1)
        if headings is None:
            _, headings = self._pieces.at(new)
        path = self._headings.at(new) if headings is None else headings
        header = self._input.header(joined_headings(path))
        return Chunk(self._count, begin, end, text, page, last_page, path, header)

    def forget(self, before: int) -> None:
        """Drop pages and headings that end before an offset."""
        self._pieces.forget(before)
        self._headings.forget(before)


def _middle(text: str) -> int:
    """Where to divide a text: at the strongest break in its middle half, the one nearest to the middle."""
    length = len(text)
    for kind in (PARAGRAPH, *WEAKER_BREAKS):
        if ends := [found.end() for found in _between(kind, text, length // 4, length - length // 4)]:
            return min(ends, key=lambda end: (abs(2 * end - length), end))
    return length // 2


def _between(kind: re.Pattern[str], text: str, low: int, high: int) -> Iterator[re.Match[str]]:
    return (found for found in kind.finditer(text, low, high) if low < found.end() < high)
