"""Cuts text into chunks, as a stream, so that an edit changes only the chunks around it.

Two cuts, one inside the other. The outer one cuts the text into *windows* at places that the text itself chooses: of
the paragraph breaks between a least and a greatest distance, the first that a heading follows, or whose preceding
characters hash to a given residue with no heading near. The choice depends on nothing far away, so after an edit the
windows fall back into step within one or two, and where a section begins they nearly always are in step. This is
content-defined chunking as in LBFS (Muthitacharoen et al., SOSP 2001) and FastCDC (Xia et al., USENIX ATC 2016), on
paragraph breaks instead of bytes. The inner cut packs each window into chunks with semantic-text-splitter, which
starts afresh in every window: no edit reaches past the end of its own.

The constants were chosen by counting over 3,000 edits of one place and 750 moves of a section, in each of: documents of
50 KB of Python's language reference; the same with every fourth paragraph break only; Markdown files. Windows from 0.5
to 4 chunk sizes, at headings and at one other break in six, change 1 chunk in the median, 1.1 to 1.3 in the mean and 2
at the 95th percentile; a section moved to between two others changes 1.3, none and 2.1 in the mean, 4, none and 5 at
the 95th percentile; chunks are 0.70, 0.72 and 0.61 full. Blind to headings, with windows from 0.4 sizes and at one
break in four, edits of one place changed 1.1 to 1.4, a moved section 3.8, 0.6 and 3.2, and chunks were 0.67, 0.71 and
0.60 full. Sections shorter than the least window are what a move still costs: windows from 0.2 sizes make it cheaper
and chunks small, in the Markdown a fifth less full. Fewer breaks fill chunks a little further, and edits then change 3
at the 95th percentile. To divide a window where its hashes are least, and not to pack it from its beginning, makes no
edit cheaper.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from ingest_pipeline.chunking.headings import HeadingFinder, Timeline
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Chunk, TextPiece

CHUNKER: Final = "section-windows-1/semantic-text-splitter-0.33"
"""Part of the recipe. A new value means that the same text may be cut at other positions."""

LEAST_SIZE: Final = 50
GREATEST_SIZE: Final = 16_384
"""Four chunks of this size fill a window of 64 KB. The splitter's cost per character grows with its input."""

_LEAST_WINDOW: Final = 0.5
_GREATEST_WINDOW: Final = 4
_ONE_BREAK_IN: Final = 6
_HASHED: Final = 32
"""Characters before a break that decide about it. An edit further away does not change the decision."""
_AHEAD: Final = 256
"""Characters after a break in which a heading is recognized."""

_NEWLINE: Final = r"(?>\r\n?|\n)"
_PARAGRAPH: Final = re.compile(rf"{_NEWLINE}(?:[ \t]*+{_NEWLINE})+")
_LINE_END: Final = rf"[ \t]*(?:{_NEWLINE}|\Z)"
_MARKDOWN_HEADING: Final = re.compile(
    rf"#{{1,6}}[ \t]+\S|[^\r\n]{{1,120}}{_NEWLINE}(?:={{3,}}|-{{3,}}){_LINE_END}",
)
# As in reStructuredText and many a plain text: underlined, and perhaps overlined.
_UNDERLINED: Final = re.compile(
    rf"(?:([^\w\s])\1{{2,}}{_LINE_END})?[ \t]*\S[^\r\n]{{0,118}}{_NEWLINE}([^\w\s])\2{{2,}}{_LINE_END}"
)
_WEAKER_BREAKS: Final = [
    re.compile(_NEWLINE),
    re.compile(r"[.!?]\s+|[。！？]\s*"),  # noqa: RUF001  # the full-width marks end sentences in Chinese and Japanese
    re.compile(r"\s+"),
    re.compile(r"(?<=\w)(?=\w)"),
    # Anywhere but inside what is seen as one character: joined emoji, variants and skin tones, combining accents.
    re.compile("(?<!\u200d)(?![\u0300-\u036f\u200d\ufe00-\ufe0f\U0001f3fb-\U0001f3ff])"),
]
_WORD_START: Final = re.compile(r"\s(?=\S)")
_NO_SPACE: Final = re.compile(r"\S")


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

    def chunks(self, pieces: Iterable[TextPiece], *, markdown: bool) -> Iterator[Chunk]:
        """Cut the concatenated texts of ``pieces``. How the text is divided into pieces does not move a cut.

        Holds little more than two windows in memory, 4 ``size`` characters each at most.

        Args:
            pieces: The extracted text, in order.
            markdown: Whether headings, lists, tables and code blocks of Markdown are kept together. Else headings are
                titles that are underlined.

        Yields:
            Chunks by ascending offset, none of them blank. Without overlap no two share a character, and every
            character that is not white space is in one. The headings of a chunk are those above its first character
            that it does not repeat.
        """
        splitter = self._markdown if markdown else self._text
        heading = _MARKDOWN_HEADING if markdown else _UNDERLINED
        cut = _Cut(int(_LEAST_WINDOW * self.size), _GREATEST_WINDOW * self.size, heading)
        sections = Sections(markdown=markdown)
        ordinal = start = end = 0
        lead = ""
        for window in cut.windows(sections.texts(pieces)):
            sections.read(window)
            for offset, text in splitter.chunk_indices(lead + window):
                begin = start - len(lead) + offset
                # What ends inside the lead was in a chunk already; the splitter's idea of white space is not Python's.
                if begin + len(text) > start and not text.isspace():
                    new = _NO_SPACE.search(text, max(0, end - begin))
                    end = begin + len(text)
                    yield sections.chunk(ordinal, begin, text, begin + new.start() if new else begin)
                    ordinal += 1
            start += len(window)
            lead = self._repeated(window)
            sections.forget(start - len(lead))

    def _repeated(self, window: str) -> str:
        """The end of a window that the next one sees again: at most ``overlap`` characters, from a word's start."""
        if self.overlap == 0:
            return ""
        tail = window[-self.overlap :]
        word = _WORD_START.search(tail)
        return tail[word.end() :] if word else ""


class Sections:
    """The pages and headings of the text that was read, as far back as chunks may still begin."""

    def __init__(self, *, markdown: bool) -> None:
        self._finder = HeadingFinder(markdown=markdown)
        self._pieces = Timeline[tuple[int | None, tuple[str, ...] | None]]((None, None))
        self._headings = Timeline[tuple[str, ...]](())

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

    def chunk(self, ordinal: int, begin: int, text: str, new: int) -> Chunk:
        """A chunk with its pages and headings.

        Args:
            ordinal: Position among the chunks.
            begin: Offset of the text.
            text: The text.
            new: Offset of its first character that the chunk before it does not have.
        """
        end = begin + len(text)
        page, _ = self._pieces.at(begin)
        last_page, _ = self._pieces.at(end - 1)
        _, heading = self._pieces.at(new)
        return Chunk(ordinal, begin, end, text, page, last_page, self._headings.at(new) if heading is None else heading)

    def forget(self, before: int) -> None:
        """Drop pages and headings that end before an offset."""
        self._pieces.forget(before)
        self._headings.forget(before)


@dataclass(frozen=True, slots=True)
class _Cut:
    """The outer cut: into windows of at most ``greatest`` characters."""

    least: int
    greatest: int
    heading: re.Pattern[str]

    def windows(self, pieces: Iterable[str]) -> Iterator[str]:
        """Windows whose concatenation is that of the pieces."""
        buffer = ""
        for piece in pieces:
            for at in range(0, len(piece), self.greatest):
                buffer += piece[at : at + self.greatest]
                start = 0
                while len(buffer) - start > self.greatest + _AHEAD:
                    end = start + self._end(buffer[start : start + self.greatest + _AHEAD])
                    yield buffer[start:end]
                    start = end
                buffer = buffer[start:]
        while len(buffer) > self.greatest:
            end = self._end(buffer[: self.greatest + _AHEAD])
            yield buffer[:end]
            buffer = buffer[end:]
        # The end is cut like any other place, so that appending to a document leaves its last windows alone.
        while (chosen := self._chosen(buffer)) is not None:
            yield buffer[:chosen]
            buffer = buffer[chosen:]
        if buffer:
            yield buffer

    def _end(self, text: str) -> int:
        """Where a window ends that starts with ``text``: its greatest extent, and what is looked at beyond."""
        end = self._chosen(text)
        if end is not None:
            return end
        for kind in (_PARAGRAPH, *_WEAKER_BREAKS):
            # Whether the end of the greatest extent is a break, depends on more than is looked at.
            found = [one for one in kind.finditer(text, self.least, self.greatest) if one.end() < self.greatest]
            if found:
                return -min((_fingerprint(text, one), -one.end()) for one in found)[1]
        return self.greatest

    def _chosen(self, text: str) -> int | None:
        """End of the first paragraph break that a heading follows, or that its own hash chooses if none is near."""
        for found in _PARAGRAPH.finditer(text, self.least, self.greatest):
            end = found.end()
            if end < min(len(text), self.greatest):
                if self._is_heading(text, end):
                    return end
                if _fingerprint(text, found) % _ONE_BREAK_IN == 0:
                    return self._heading_near(text, end) or end
        return None

    def _heading_near(self, text: str, start: int) -> int | None:
        """The first heading so near that it could not begin a window if one began at ``start``."""
        near = min(start + self.least, self.greatest)
        ends = (found.end() for found in _PARAGRAPH.finditer(text, start, near))
        return next((end for end in ends if end < near and self._is_heading(text, end)), None)

    def _is_heading(self, text: str, at: int) -> bool:
        return self.heading.match(text[at : at + _AHEAD]) is not None


def _fingerprint(text: str, found: re.Match[str]) -> int:
    return crc32(text[max(0, found.start() - _HASHED) : found.start()].encode())
