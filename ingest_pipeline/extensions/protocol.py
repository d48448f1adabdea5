"""The messages between the parent process and the child process of an extension, and how they are checked."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, cast

from ingest_pipeline.types import TextPiece, Usage

MAX_DETAIL_CHARACTERS: Final = 1_000
"""Characters of an error message: some quote the document."""
MAX_PIECES: Final = 100_000
MAX_COLUMNS: Final = 1_000
MAX_COLUMNS_BYTES: Final = 1 << 20
"""Size of the columns of a document, as JSON."""
_LENGTH: Final = 8
_GREATEST_COUNT: Final = 1 << 40
_GREATEST_REQUESTS: Final = 1 << 20
_INT64: Final = 1 << 63


class InvalidResultError(Exception):
    """An extension returned something that its protocol does not allow. The message names it."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """The first message to a child process. It names the extension to load."""

    name: str
    """Option and class, for error messages."""
    role: str
    """The module that calls the extension."""
    extension: bytes
    """The `Extension`, pickled."""
    is_confined: bool


def pack(text: str, *parts: object) -> bytes:
    """A text and values of JSON as bytes.

    Raises:
        InvalidResultError: The text has a character that UTF-8 cannot encode.
    """
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidResultError(f"returned text that is not valid Unicode: {error.reason}") from None
    return len(encoded).to_bytes(_LENGTH) + encoded + json.dumps(parts, allow_nan=False).encode()


def unpack(data: bytes) -> tuple[str, list[Any]]:
    """The text and the values.

    Raises:
        ValueError, TypeError: The bytes were not made by `pack`.
    """
    length = int.from_bytes(data[:_LENGTH])
    if length > len(data) - _LENGTH:
        raise ValueError(length)
    parts = json.loads(data[_LENGTH + length :])
    if not isinstance(parts, list):
        raise TypeError(parts)
    return data[_LENGTH : _LENGTH + length].decode(), cast("list[Any]", parts)  # type: ignore[redundant-cast]


def pieces_to_json(pieces: Iterable[object], max_bytes: int) -> tuple[str, list[object]]:
    """The text of checked pieces, and how it is divided into them.

    Args:
        pieces: What an extension returned.
        max_bytes: Maximum size of the text.

    Raises:
        InvalidResultError: They are not pieces, or too many or too long.
    """
    texts: list[str] = []
    division: list[object] = []
    size = 0
    for piece in pieces:
        if len(texts) == MAX_PIECES:
            raise InvalidResultError(f"returned more than {MAX_PIECES} pieces")
        if not isinstance(piece, TextPiece):
            raise InvalidResultError(f"returned a piece that is a {type(piece).__name__}, not a TextPiece")
        text = piece.text
        _check_place(text, piece.page, piece.heading)
        text = text.replace("\0", "")  # Postgres stores none
        size += len(text)  # a lower bound of the bytes
        if size > max_bytes:
            raise InvalidResultError(f"returned more than {max_bytes} bytes of text")
        texts.append(text)
        division.append((len(text), piece.page, piece.heading))
    return "".join(texts), division


def pieces_from_json(text: str, division: object) -> list[TextPiece]:
    """The pieces that a child sent.

    Raises:
        ValueError, TypeError: They are not the pieces of this text.
    """
    pieces: list[TextPiece] = []
    start = 0
    for characters, page, heading in cast("list[list[Any]]", division):
        path = None if heading is None else tuple(heading)
        if type(characters) is not int or characters < 0:
            raise ValueError(characters)
        try:
            _check_place("", page, path)
        except InvalidResultError as error:
            raise TypeError(page, path) from error
        pieces.append(TextPiece(text[start : start + characters], page, path))
        start += characters
    if start != len(text):
        raise ValueError(start)
    return pieces


def columns_to_json(columns: object) -> dict[str, object]:
    """Checked columns as JSON. Dates and times become text in ISO 8601.

    Raises:
        InvalidResultError: They are not columns, or too many or too long.
    """
    if not isinstance(columns, Mapping):
        raise InvalidResultError(f"returned columns that are a {type(columns).__name__}, not a mapping")
    named = cast("Mapping[object, object]", columns)
    if len(named) > MAX_COLUMNS:
        raise InvalidResultError(f"returned more than {MAX_COLUMNS} columns")
    found: dict[str, object] = {}
    for name, value in named.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise InvalidResultError(f"returned a column that is named {name!r:.60}")
        found[name] = _value(name, value)
    try:
        size = len(json.dumps(found, allow_nan=False, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise InvalidResultError("returned a column whose text is not valid Unicode") from None
    if size > MAX_COLUMNS_BYTES:
        raise InvalidResultError(f"returned columns of more than {MAX_COLUMNS_BYTES} bytes")
    return found


def columns_from_json(columns: object) -> dict[str, object]:
    """The columns that a child sent, checked again.

    Raises:
        TypeError: They are not columns.
    """
    try:
        return columns_to_json(columns)
    except InvalidResultError as error:
        raise TypeError(str(error)) from error


def check_usage(usage: object) -> None:
    """Check what an extension reports that a paid API billed.

    Raises:
        InvalidResultError: It is no `Usage`, or its counts are none.
    """
    if not isinstance(usage, Usage):
        raise InvalidResultError(f"returned usage that is a {type(usage).__name__}, not a Usage")
    for name, value, most in (
        ("tokens", usage.tokens, _GREATEST_COUNT),
        ("requests", usage.requests, _GREATEST_REQUESTS),
    ):
        if type(value) is not int or not 0 <= value <= most:
            raise InvalidResultError(f"returned usage with {value!r:.30} {name}")


def _check_place(text: object, page: object, heading: object) -> None:
    if not isinstance(text, str):
        raise InvalidResultError(f"returned a piece whose text is a {type(text).__name__}")
    if page is not None and (type(page) is not int or not 0 < page < _INT64):
        raise InvalidResultError(f"returned a piece with the page {page!r:.60}; pages are counted from 1")
    if heading is not None and not (
        isinstance(heading, tuple) and all(isinstance(title, str) for title in cast("tuple[object, ...]", heading))
    ):
        raise InvalidResultError(f"returned a piece with the heading {heading!r:.60}, which is not a tuple of texts")


def _value(name: str, value: object) -> object:
    if isinstance(value, list | tuple):
        return [_scalar(name, one) for one in cast("Iterable[object]", value)]
    return _scalar(name, value)


def _scalar(name: str, value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value).replace("\0", "")
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise InvalidResultError(
        f"returned the column {name!r} with {value!r:.60}, which is no text, number, truth value, date or list of them"
    )
