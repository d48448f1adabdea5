"""The outer cut of the built-in chunker: windows whose ends the text itself chooses.

A window ends before a heading, or at a paragraph break whose preceding characters hash to a given residue with no
heading near. `content_defined` explains why, and packs the windows into chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ingest_pipeline.chunking.breaks import NEWLINE, PARAGRAPH, WEAKER_BREAKS

GREATEST_WINDOW: Final = 4
"""In chunk sizes."""
_LEAST_WINDOW: Final = 0.5
_ONE_BREAK_IN: Final = 6
_HASHED: Final = 32
"""Characters before a break that decide about it. An edit further away does not change the decision."""
AHEAD: Final = 256
"""Characters after a break in which a heading is recognized."""

_LINE_END: Final = rf"[ \t]*(?:{NEWLINE}|\Z)"
_MARKDOWN_HEADING: Final = re.compile(
    rf"#{{1,6}}[ \t]+\S|[^\r\n]{{1,120}}+{NEWLINE}(?:={{3,}}|-{{3,}}){_LINE_END}",
)
# As in reStructuredText and many a plain text: underlined, and perhaps overlined.
_UNDERLINED: Final = re.compile(
    rf"(?:([^\w\s])\1{{2,}}{_LINE_END})?[ \t]*+\S[^\r\n]{{0,118}}+{NEWLINE}([^\w\s])\2{{2,}}{_LINE_END}"
)


@dataclass(frozen=True, slots=True)
class WindowCut:
    """The outer cut: into windows of at most ``greatest`` characters."""

    least: int
    greatest: int
    heading: re.Pattern[str]

    @classmethod
    def of_chunks(cls, characters: int, *, markdown: bool) -> WindowCut:
        """The windows for chunks of a size in characters."""
        heading = _MARKDOWN_HEADING if markdown else _UNDERLINED
        return cls(int(_LEAST_WINDOW * characters), GREATEST_WINDOW * characters, heading)

    def windows(self, pieces: Iterable[str]) -> Iterator[str]:
        """Windows whose concatenation is that of the pieces."""
        buffer = ""
        for piece in pieces:
            for at in range(0, len(piece), self.greatest):
                buffer += piece[at : at + self.greatest]
                start = 0
                while length := self.first(buffer, start, is_end=False):
                    yield buffer[start : start + length]
                    start += length
                buffer = buffer[start:]
        while length := self.first(buffer, 0, is_end=True):
            yield buffer[:length]
            buffer = buffer[length:]

    def first(self, text: str, start: int, *, is_end: bool) -> int:
        """Length of the window that begins at an offset of a text. 0: more of the text has to be read.

        Args:
            text: A part of a document.
            start: Where the window begins.
            is_end: Whether the document ends with the text.
        """
        rest = len(text) - start
        if rest > self.greatest + AHEAD or (is_end and rest > self.greatest):
            return self._end(text[start : start + self.greatest + AHEAD])
        # The end is cut like any other place, so that appending to a document leaves its last windows alone.
        return (self._chosen(text[start:]) or rest) if is_end else 0

    def begins_with_heading(self, window: str) -> bool:
        """Whether a window begins a section."""
        return self._is_heading(window, 0)

    def _end(self, text: str) -> int:
        """Where a window ends that starts with ``text``: its greatest extent, and what is looked at beyond."""
        end = self._chosen(text)
        if end is not None:
            return end
        for kind in (PARAGRAPH, *WEAKER_BREAKS):
            # Whether the end of the greatest extent is a break, depends on more than is looked at.
            found = [one for one in kind.finditer(text, self.least, self.greatest) if one.end() < self.greatest]
            if found:
                return -min((_fingerprint(text, one), -one.end()) for one in found)[1]
        return self.greatest

    def _chosen(self, text: str) -> int | None:
        """End of the first paragraph break that a heading follows, or that its own hash chooses if none is near."""
        for found in PARAGRAPH.finditer(text, self.least, self.greatest):
            end = found.end()
            if end >= self.greatest or end == len(text):
                break
            if self._is_heading(text, end):
                return end
            if _fingerprint(text, found) % _ONE_BREAK_IN == 0:
                return self._heading_near(text, end) or end
        return None

    def _heading_near(self, text: str, start: int) -> int | None:
        """The first heading so near that it could not begin a window if one began at ``start``."""
        near = min(start + self.least, self.greatest)
        ends = (found.end() for found in PARAGRAPH.finditer(text, start, near))
        return next((end for end in ends if end < near and self._is_heading(text, end)), None)

    def _is_heading(self, text: str, at: int) -> bool:
        return self.heading.match(text, at, at + AHEAD) is not None


def _fingerprint(text: str, found: re.Match[str]) -> int:
    start = found.start()
    return crc32(text[max(0, start - _HASHED) : start].encode())
