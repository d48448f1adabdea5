"""Real documents, and what people do to them: put paragraphs in, take them out, change them, append, move sections."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pydoc_data.topics import topics

_BREAK = re.compile(r"\n(?:[ \t]*\n)+")
_TITLE = re.compile(r"\S[^\n]*\n([*=~-])\1{2,}(?:\n|$)")
_TOGETHER = 12


@cache
def reference() -> str:
    """The language reference of the running Python, as one text."""
    return "\n\n".join(text for _, text in sorted(topics.items()))


def real_documents(size: int) -> list[str]:
    """Consecutive pieces of the language reference, each of ``size`` characters."""
    whole = reference()
    return [whole[at : at + size] for at in range(0, len(whole) - size + 1, size)]


Edit = Callable[[list[str], random.Random], None]
"""Changes a list of paragraphs."""


def _new(chance: random.Random) -> str:
    paragraph = chance.choice(_BREAK.split(reference()))
    return f"{paragraph} {chance.getrandbits(40):x}"


def _insert_at_start(parts: list[str], chance: random.Random) -> None:
    parts.insert(0, _new(chance))


def _insert_in_the_middle(parts: list[str], chance: random.Random) -> None:
    parts.insert(chance.randrange(1, len(parts)), _new(chance))


def _insert_before_the_end(parts: list[str], chance: random.Random) -> None:
    parts.insert(len(parts) - 1, _new(chance))


def _append(parts: list[str], chance: random.Random) -> None:
    parts.append(_new(chance))


def _delete(parts: list[str], chance: random.Random) -> None:
    parts.pop(chance.randrange(len(parts)))


def _change(parts: list[str], chance: random.Random) -> None:
    at = chance.randrange(len(parts))
    words = parts[at].split(" ")
    words[chance.randrange(len(words))] = f"replaced{chance.getrandbits(24):x}"
    parts[at] = " ".join(words)


def _move_a_section(parts: list[str], chance: random.Random) -> None:
    """From its title to the next, to where another one begins or the text ends."""
    starts = [0, *(at for at, part in enumerate(parts) if at and _TITLE.match(part)), len(parts)]
    sections = [parts[start:end] for start, end in pairwise(starts)]
    section = sections.pop(chance.randrange(len(sections)))
    sections.insert(chance.randrange(len(sections) + 1), section)
    parts[:] = [part for section in sections for part in section]


def _move_twelve_paragraphs(parts: list[str], chance: random.Random) -> None:
    start = chance.randrange(max(1, len(parts) - _TOGETHER))
    moved = parts[start : start + _TOGETHER]
    del parts[start : start + _TOGETHER]
    at = chance.randrange(len(parts) + 1)
    parts[at:at] = moved


EDITS: dict[str, Edit] = {
    "insert at the start": _insert_at_start,
    "insert in the middle": _insert_in_the_middle,
    "insert before the end": _insert_before_the_end,
    "append": _append,
    "delete": _delete,
    "change a word": _change,
    "move a section": _move_a_section,
    "move twelve paragraphs": _move_twelve_paragraphs,
}
MOVES = ("move a section", "move twelve paragraphs")
"""The edits of three places: where the paragraphs were, and both their ends where they are."""


def edited(text: str, kind: str, chance: random.Random) -> str:
    """The text after one edit."""
    parts = _BREAK.split(text)
    EDITS[kind](parts, chance)
    return "\n\n".join(parts)


def normal(text: str) -> str:
    """The text as edits leave it: one empty line between paragraphs."""
    return "\n\n".join(_BREAK.split(text))
