"""Divides an extracted text into the pages of its document. Used by `worker`, in the child.

kreuzberg's own page boundaries are offsets of a text before it became Markdown, so they drift from page to page. The
pages of a PDF are found by the elements that kreuzberg reports with their page: each is searched for after the one
before it, by its letters and digits, because Markdown changes the other characters. The slides of a PPTX are found by
markers that kreuzberg puts before each of them, and that are removed again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

Piece = tuple[str, int | None]
"""A part of the text, and the page on which it begins."""

MARKER: Final = f"slide{uuid4().hex}n"
"""Precedes the number of a slide. No document can contain it, because it is new in every process."""
_SLIDE: Final = re.compile(rf"{MARKER}(\d+)\n*")

_SEARCHED_CHARACTERS: Final = 48
"""Number of letters and digits of an element that are searched for."""
_MIN_CHARACTERS: Final = 4
"""Elements with fewer letters and digits are skipped, because they may occur anywhere."""
_SEARCH_DISTANCE: Final = 20_000
"""How far ahead an element is searched for, in letters and digits. One that is not found is skipped."""


def divide_slides(content: str, clean: Callable[[str], str]) -> list[Piece]:
    """The text without markers, a piece for each slide that has any.

    Args:
        content: The text with `MARKER` and a number before each slide.
        clean: Cleans the text of a piece.
    """
    first, *rest = _SLIDE.split(content)
    pieces: list[Piece] = [(clean(first), None)] if first else []
    pieces += [(clean(text), int(number)) for number, text in zip(rest[::2], rest[1::2], strict=True) if text]
    if pieces:
        # A last slide without text leaves the empty line before its marker.
        text, page = pieces[-1]
        pieces[-1] = (text.rstrip("\n") + "\n", page)
    return pieces or [("", None)]


def divide_pages(text: str, nodes: Iterable[Mapping[str, Any]]) -> list[Piece]:
    """The text divided where its pages begin. One piece, if the pages are unknown.

    Args:
        text: The extracted text.
        nodes: kreuzberg's elements of the document, in their order.
    """
    places = [place for place, character in enumerate(text) if character.isalnum()]
    letters = "".join(text[place] for place in places)
    starts: list[tuple[int, int]] = []
    at = 0
    for node in nodes:
        wanted = "".join(filter(str.isalnum, str(node["content"].get("text") or "")))[:_SEARCHED_CHARACTERS]
        page = node.get("page")
        found = (
            letters.find(wanted, at, at + _SEARCH_DISTANCE)
            if len(wanted) >= _MIN_CHARACTERS and type(page) is int
            else -1
        )
        if page is None or found < 0:
            continue
        at = found + len(wanted)
        if not starts or page > starts[-1][1]:
            starts.append((_line_start(text, places[found]) if starts else 0, page))
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return (
        [(text[start:end], page) for (start, page), end in zip(starts, ends, strict=True)] if starts else [(text, None)]
    )


def _line_start(text: str, place: int) -> int:
    """The beginning of the line, if only markup precedes the place in it; else the place itself."""
    start = text.rfind("\n", 0, place) + 1
    return start if not any(map(str.isalnum, text[start:place])) else place
