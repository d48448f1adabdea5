"""Cutting text into chunks, as a stream, so that an edit changes the chunks around it and no others.

Two cuts, one inside the other. The outer one cuts the text into *windows* at places that the text itself chooses: of
the breaks between a least and a greatest distance, the first whose preceding characters hash to a given residue. The
choice depends on nothing far away, so after an edit the windows fall back into step within one or two. This is
content-defined chunking as in LBFS (Muthitacharoen et al., SOSP 2001) and FastCDC (Xia et al., USENIX ATC 2016), on
paragraph breaks in place of bytes. The inner cut packs each window into chunks with semantic-text-splitter, which
starts afresh in every window: no edit reaches past the end of its own.

The constants were chosen by counting over 1,500 edits of documents of 50 KB, half of them with short paragraphs (160
characters) and half with long ones (620). Windows from 0.4 to 4 chunk sizes, one break in four, change 1 chunk in the
median, 1.4 in the mean and 3 at the 95th percentile, and chunks are 0.67 full. Windows from 1 to 2 sizes change 2.5 in
the mean and 9 at the 95th percentile; from 2 to 4, 2.3 and 8, with chunks 0.71 full.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from zlib import crc32

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.model import Chunk

CHUNKER: Final = "paragraph-windows-1/semantic-text-splitter-0.33"
"""Goes into the recipe: another value means that the same text may be cut elsewhere."""

LEAST_SIZE: Final = 50
GREATEST_SIZE: Final = 16_384
"""Characters. Four of them fill a window of 64 KB; the splitter's cost per character grows with what it is given."""

_LEAST_WINDOW: Final = 0.4
_GREATEST_WINDOW: Final = 4
_ONE_BREAK_IN: Final = 4
_HASHED: Final = 32
"""Characters before a break that decide about it: an edit further away than this leaves the decision alone."""

_NEWLINE: Final = r"(?>\r\n?|\n)"
_PARAGRAPH: Final = re.compile(rf"{_NEWLINE}(?:[ \t]*+{_NEWLINE})+")
_WEAKER_BREAKS: Final = [
    re.compile(_NEWLINE),
    re.compile(r"[.!?]\s+|[。！？]\s*"),  # noqa: RUF001  # the full-width marks end sentences in Chinese and Japanese
    re.compile(r"\s+"),
    re.compile(r"(?<=\w)(?=\w)"),
    # Anywhere but inside what is seen as one character: joined emoji, variants and skin tones, combining accents.
    re.compile("(?<!\u200d)(?![\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff])"),
]
_WORD_START: Final = re.compile(r"\s(?=\S)")


class Chunker:
    """Cuts extracted text into chunks of at most ``size`` characters.

    Args:
        size: Characters in a chunk at most, 50 to 16,384.
        overlap: Characters at most that a chunk repeats of the one before it, white space at either end not counted.

    Raises:
        ConfigurationError: ``size`` is out of bounds, or ``overlap`` is negative or not smaller than ``size``.
    """

    def __init__(self, size: int, overlap: int) -> None:
        if not LEAST_SIZE <= size <= GREATEST_SIZE:
            raise ConfigurationError(
                f"A chunk size of {size} is out of bounds",
                f"Set INGEST_CHUNK_SIZE between {LEAST_SIZE} and {GREATEST_SIZE} characters.",
            )
        if not 0 <= overlap < size:
            raise ConfigurationError(
                f"A chunk overlap of {overlap} does not fit a chunk size of {size}",
                "Set INGEST_CHUNK_OVERLAP to 0 or more, and below INGEST_CHUNK_SIZE.",
            )
        self.size = size
        self.overlap = overlap
        self._text = TextSplitter(size, overlap)
        self._markdown = MarkdownSplitter(size, overlap)

    def chunks(self, pieces: Iterable[str], *, markdown: bool) -> Iterator[Chunk]:
        """Cut the concatenation of ``pieces``; how it is divided into pieces does not matter.

        Holds two windows in memory at most, 4 ``size`` characters each.

        Args:
            pieces: The extracted text, in order.
            markdown: Whether headings, lists, tables and code blocks of Markdown are kept together.

        Yields:
            Chunks by ascending offset, none of them blank. Without overlap no two share a character, and every
            character that is not white space is in one.
        """
        splitter = self._markdown if markdown else self._text
        ordinal = start = 0
        lead = ""
        for window in _windows(pieces, int(_LEAST_WINDOW * self.size), _GREATEST_WINDOW * self.size):
            for offset, text in splitter.chunk_indices(lead + window):
                begin = start - len(lead) + offset
                # What ends inside the lead was in a chunk already; the splitter's idea of white space is not Python's.
                if begin + len(text) > start and not text.isspace():
                    yield Chunk(ordinal, begin, begin + len(text), text)
                    ordinal += 1
            start += len(window)
            lead = self._repeated(window)

    def _repeated(self, window: str) -> str:
        """The end of a window that the next one sees again: at most ``overlap`` characters, from a word's start."""
        if self.overlap == 0:
            return ""
        tail = window[-self.overlap :]
        word = _WORD_START.search(tail)
        return tail[word.end() :] if word else ""


def _windows(pieces: Iterable[str], least: int, greatest: int) -> Iterator[str]:
    """Cut a text into windows of at most ``greatest`` characters, whose concatenation is the text."""
    buffer = ""
    for piece in pieces:
        for at in range(0, len(piece), greatest):
            buffer += piece[at : at + greatest]
            start = 0
            while len(buffer) - start > greatest:
                end = start + _cut(buffer[start : start + greatest], least)
                yield buffer[start:end]
                start = end
            buffer = buffer[start:]
    # The end of the text is cut like any other place, so that appending to a document leaves its last windows alone.
    while (chosen := _chosen_paragraph(buffer, least)) is not None:
        yield buffer[:chosen]
        buffer = buffer[chosen:]
    if buffer:
        yield buffer


def _cut(text: str, least: int) -> int:
    """Where a window that starts with ``text``, its greatest extent, ends."""
    end = _chosen_paragraph(text, least)
    if end is not None:
        return end
    for kind in (_PARAGRAPH, *_WEAKER_BREAKS):
        # What follows the text is not known here, and so not whether its end is a break.
        ends = [(_fingerprint(text, found), -found.end()) for found in kind.finditer(text, least)]
        breaks = [(fingerprint, end) for fingerprint, end in ends if -end < len(text)]
        if breaks:
            return -min(breaks)[1]
    return len(text)


def _chosen_paragraph(text: str, least: int) -> int | None:
    """End of the first paragraph break after ``least`` characters that its own hash chooses."""
    for found in _PARAGRAPH.finditer(text, least):
        if found.end() < len(text) and _fingerprint(text, found) % _ONE_BREAK_IN == 0:
            return found.end()
    return None


def _fingerprint(text: str, found: re.Match[str]) -> int:
    return crc32(text[max(0, found.start() - _HASHED) : found.start()].encode())
