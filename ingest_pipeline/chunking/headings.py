"""Finds headings while text streams by: the path of headings above any place in it.

Markdown has headings of the forms `# Title` and underlined, outside code fences and front matter. In other text a
heading is a title that is underlined, and perhaps overlined; as in reStructuredText, the first style that occurs is the
outermost.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

CONTEXT: Final = 500
"""Characters before a window in which the title of an underline, and what precedes it, is looked for."""
_GREATEST_TITLE: Final = 120
"""Longer titles are cut: a header must leave room for the text below it."""
_GREATEST_LINE: Final = 1_000
_SETEXT_LEVELS: Final = {"=": 1, "-": 2}

# Each begins with the newline before a line, so that a search skips from newline to newline.
_MARKDOWN: Final = re.compile(
    r"[\r\n] {0,3}(?:"
    r"(?P<fence>`{3,}|~{3,})(?P<info>[^\r\n]*)"
    r"|(?P<hashes>\#{1,6})(?=[ \t])(?P<title>[^\r\n]*)"
    r"|(?P<under>={3,}|-{3,})[ \t]*(?=[\r\n]|\Z))"
)
_UNDERLINE: Final = re.compile(r"[\r\n](?P<under>([^\w\s])\2{2,})[ \t]*(?=[\r\n]|\Z)")
_FRONT_MATTER: Final = re.compile(
    r"---[ \t]*[\r\n]+[\w-]+[ \t]*:(?:[^\r\n]*[\r\n]+)+?(?:---|\.\.\.)[ \t]*(?=[\r\n]|\Z)"
)

_CLOSING_HASHES: Final = re.compile(r"[ \t]+#+[ \t]*\Z")
_ATTRIBUTES: Final = re.compile(r"[ \t]*\{[#.][^{}]*\}[ \t]*\Z")
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_MARKUP: Final = re.compile(r"\*\*|__|`")
_ESCAPE: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
# The last line of a list, quotation, table or heading is no title.
_NO_TITLE: Final = re.compile(r"(?:[>|#]|[-*+] |\d+[.)] | {4}|\t)")


class Timeline(Generic[T]):
    """Values that change at some offsets of a text."""

    def __init__(self, first: T) -> None:
        self._offsets = [0]
        self._values = [first]

    def add(self, offset: int, value: T) -> None:
        """Record the value from an offset on, which is not before the last one."""
        if value != self._values[-1]:
            self._offsets.append(offset)
            self._values.append(value)

    def at(self, offset: int) -> T:
        """The value at an offset."""
        return self._values[max(0, bisect_right(self._offsets, offset) - 1)]

    def forget(self, before: int) -> None:
        """Drop values that end before an offset."""
        gone = bisect_right(self._offsets, before) - 1
        if gone > 0:
            del self._offsets[:gone], self._values[:gone]


@dataclass(frozen=True, slots=True)
class HeadingState:
    """What a finder knows at one place, besides the characters before it."""

    fence: str = ""
    """The mark of the code fence that is open there."""
    styles: tuple[tuple[str, bool], ...] = ()
    """The underlines that occurred before, outermost first, and whether each was an overline too."""
    path: tuple[tuple[int, str], ...] = ()
    """Levels and titles of the headings above."""


class HeadingFinder:
    """Finds the headings of a text that arrives in windows. How it is divided into pieces does not matter.

    Args:
        markdown: Whether headings are those of Markdown.
        start: Where the first window begins.
        context: What precedes it: a newline and the text, or the last `CONTEXT` characters of both.
        state: What was found before it.
    """

    def __init__(
        self, *, markdown: bool, start: int = 0, context: str = "\n", state: HeadingState | None = None
    ) -> None:
        found = state or HeadingState()
        self._markdown = markdown
        self.context = context
        """The characters before the next window that decide about headings."""
        self._end = start
        self._fence = found.fence
        self._styles = list(found.styles)
        self._path = list(found.path)

    @property
    def state(self) -> HeadingState:
        """What is known before the next window."""
        return HeadingState(self._fence, tuple(self._styles), tuple(self._path))

    @property
    def titles(self) -> tuple[str, ...]:
        """The path of headings above the next window."""
        return tuple(name for _, name in self._path)

    def read(self, window: str) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Read the next window of the text.

        Yields:
            The offset of each heading, and the path of headings from there on, outermost first.
        """
        text = self.context + window
        base = self._end - len(self.context)
        start = len(self.context) - 1
        if self._end == 0 and self._markdown and (front := _FRONT_MATTER.match(window)):
            start += front.end()
        find = self._in_markdown if self._markdown else self._in_text
        for found in (_MARKDOWN if self._markdown else _UNDERLINE).finditer(text, start):
            heading = find(text, found)
            if heading is not None:
                offset, level, title = heading
                self._path = [*(above for above in self._path if above[0] < level), (level, title)]
                yield base + offset, self.titles
        self._end += len(window)
        self.context = text[-CONTEXT:]

    def _in_markdown(self, text: str, found: re.Match[str]) -> tuple[int, int, str] | None:
        """The start, level and title of the heading that a line of Markdown is or ends."""
        if fence := found["fence"]:
            self._pass_fence(fence, found["info"])
        elif self._fence:
            return None
        elif hashes := found["hashes"]:
            title = _plain(_CLOSING_HASHES.sub("", found["title"][:_GREATEST_LINE]))
            return (found.start() + 1, len(hashes), title) if title else None
        elif (line := _line_before(text, found.start())) and not _NO_TITLE.match(text, *line):
            above = _line_before(text, line[0] - 1)
            if above is not None and not text[slice(*above)].strip():
                return line[0], _SETEXT_LEVELS[found["under"][0]], _plain(text[slice(*line)])
        return None

    def _pass_fence(self, fence: str, info: str) -> None:
        if not self._fence:
            self._fence = "" if fence[0] == "`" and "`" in info else fence
        elif fence.startswith(self._fence) and not info.strip():
            self._fence = ""

    def _in_text(self, text: str, found: re.Match[str]) -> tuple[int, int, str] | None:
        """The start, level and title of the heading that an underline ends."""
        line = _line_before(text, found.start())
        if line is None or not re.search(r"\w", text[slice(*line)]):
            return None
        start, sign, is_overlined = line[0], found["under"][0], False
        above = _line_before(text, start - 1)
        if above is not None and set(text[slice(*above)].rstrip()) == {sign}:
            start, is_overlined = above[0], True
            above = _line_before(text, start - 1)
        if above is None or text[slice(*above)].strip():
            return None
        style = (sign, is_overlined)
        if style not in self._styles:
            self._styles.append(style)
        return start, self._styles.index(style), _cut(text[slice(*line)])


def _line_before(text: str, newline: int) -> tuple[int, int] | None:
    """Start and end of the line that a newline ends. None: it is longer than a title, or begins out of sight.

    The text begins with a newline, or is the end of a longer one. Before the first newline there is an empty line.
    """
    if newline < 0:
        return (0, 0)
    end = newline - 1 if text[newline] == "\n" and newline > 0 and text[newline - 1] == "\r" else newline
    if end == 0:
        return (0, 0)
    first = max(0, end - _GREATEST_TITLE - 1)
    start = max(text.rfind("\n", first, end), text.rfind("\r", first, end)) + 1
    return (start, end) if start > 0 else None


def _plain(title: str) -> str:
    """A title without the markup that Markdown allows in it."""
    title = _LINK.sub(r"\1", _ATTRIBUTES.sub("", title))
    return _cut(_ESCAPE.sub(r"\1", _MARKUP.sub("", title)))


def _cut(title: str) -> str:
    words = " ".join(title.split())
    return words if len(words) <= _GREATEST_TITLE else f"{words[: _GREATEST_TITLE - 1]}…"
