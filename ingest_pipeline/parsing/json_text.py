r"""Decodes the escapes of characters in JSON, so that a word is found however the file spells it.

Many programs write ``Gr\u00f6\u00dfe`` for ``Größe``. The text stays JSON: quotes, backslashes and characters that do
not print stay escaped.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|u([0-9a-f]{4})|.)", re.IGNORECASE | re.DOTALL
)
# After an even number of backslashes: the beginning of an escape, or of two escapes that are one character.
_UNFINISHED: Final = re.compile(
    r"(?<!\\)(?:\\\\)*(\\(?:u(?:[0-9a-f]{0,3}|d[89ab][0-9a-f]{2}(?:\\(?:u[0-9a-f]{0,3})?)?))?)\Z", re.IGNORECASE
)
_MAX_ESCAPE_CHARACTERS: Final = 12


def decode_escapes(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces with their escapes decoded. An escape may begin in one piece and end in the next."""
    rest = ""
    for piece in pieces:
        text = rest + piece
        found = _UNFINISHED.search(text, _even_start(text))
        end = found.start(1) if found else len(text)
        rest = text[end:]
        yield _ESCAPE.sub(_character, text[:end])
    yield _ESCAPE.sub(_character, rest)


def _even_start(text: str) -> int:
    """Where a search for an unfinished escape begins: before all backslashes whose number decides it."""
    start = max(0, len(text) - _MAX_ESCAPE_CHARACTERS)
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return start


def _character(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(0x10000 + ((int(escape[1], 16) & 0x3FF) << 10) + (int(escape[2], 16) & 0x3FF))
    character = chr(int(escape[3], 16)) if escape[3] else ""
    return character if character.isprintable() and character not in {"", '"', "\\"} else escape[0]
