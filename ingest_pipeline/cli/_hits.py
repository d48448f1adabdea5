"""Hits of a search as a list: title, place, and an excerpt around the words of the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ingest_pipeline.cli._terminal import printable

if TYPE_CHECKING:
    from ingest_pipeline.search.search import Hit

_INDENT = 3
_LINES = 3
# Lines that are longer are hard to read, and the score would be far from the title.
_MAX_WIDTH = 120
_MAX_EXCERPT = 360
# Characters of the excerpt before its first word of the question.
_LEAD = 40
# Words of a question that are no longer say little. Longer ones also match in other inflections.
_SHORT = 3
# Lines of stars or dashes below titles.
_RULES = re.compile(r"([^\w\s])\1{3,} ?")
_ENDING = 2


def print_hits(console: Console, question: str, hits: Sequence[Hit]) -> None:
    """Print hits, best first. The console's width decides how long excerpts are."""
    words = words_of(question)
    width = min(console.width, _MAX_WIDTH)
    length = min(_MAX_EXCERPT, _LINES * (width - _INDENT))
    for number, hit in enumerate(hits, 1):
        first = Table.grid(expand=True, padding=(0, 1))
        first.add_column(width=_INDENT - 1)
        first.add_column(ratio=1, overflow="fold")
        first.add_column(justify="right", no_wrap=True)
        first.add_row(f"{number}.", Text(printable(_title(hit)), "bold"), Text(f"score {_score(hit):.3f}", "dim"))
        console.print(first, width=width)
        console.print(_indented(Text(printable(_place(hit)), "dim")), width=width)
        full = _RULES.sub("", " ".join((hit.text if hit.passage is None else hit.passage.text).split()))
        shown = Text(printable(excerpt(full, words, length) if hit.passage is None else full))
        if words is not None:
            shown.highlight_regex(words, "bold yellow")
        console.print(_indented(shown), width=width)
        if number < len(hits):
            console.print()


def words_of(question: str) -> re.Pattern[str] | None:
    """A pattern of the words of a question in any inflection. None: it has no words."""
    words = re.findall(r"\w+", question)
    longer = [word for word in words if len(word) > _SHORT] or words
    stems = sorted({re.escape(word[: max(_SHORT + 1, len(word) - _ENDING)]) for word in longer}, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(stems)})\w*", re.IGNORECASE) if stems else None


def excerpt(text: str, words: re.Pattern[str] | None, length: int) -> str:
    """The part of a text with most different words of the question, with dots where something is missing."""
    if len(text) <= length:
        return text
    found = [] if words is None else list(words.finditer(text))

    def count(start: int) -> int:
        within = (one for one in found if start <= one.start() and one.end() <= start + length)
        return len({one[0].casefold()[: _SHORT + 1] for one in within})

    start = max([0, *(max(0, one.start() - _LEAD) for one in found)], key=count)
    start = min(start, len(text) - length)
    end = start + length
    if start:
        start = text.find(" ", start, start + _LEAD) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", start, end), end - _LEAD)
    return ("… " if start else "") + text[start:end] + (" …" if end < len(text) else "")


def _title(hit: Hit) -> str:
    title = hit.columns.get("title")
    return title if isinstance(title, str) and title.strip() else hit.document


def _score(hit: Hit) -> float:
    return hit.score if hit.rerank_score is None else hit.rerank_score


def _place(hit: Hit) -> str:
    """Key, pages, headings and offsets."""
    parts = [hit.document] if _title(hit) != hit.document else []
    if hit.page is not None:
        parts.append(f"page {hit.page}" if hit.page == hit.last_page else f"pages {hit.page}-{hit.last_page}")
    if hit.heading:
        parts.append(hit.heading)
    extent = hit if hit.passage is None else hit.passage
    return " · ".join([*parts, f"characters {extent.start_offset}-{extent.end_offset}"])


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, _INDENT))
