"""The types of columns, and the conversion of one value.

A value has one canonical form, which is JSON: a date or a time is its ISO string, a time is in UTC. The catalog stores
this form. Equal values of one type have equal canonical forms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Literal, cast, get_args

import pyarrow as pa

ColumnType = Literal["string", "int", "float", "bool", "date", "timestamp", "list<string>"]
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
Value = str | int | float | bool | list[str]
"""A value in its canonical form. A document without a value lacks the name of the column."""

LIST: ColumnType = "list<string>"
WIDER_TYPES: frozenset[tuple[ColumnType, ColumnType]] = frozenset({("int", "float"), ("date", "timestamp")})
"""Changes of a type that keep every value."""
MAX_STRING_BYTES = 65_536
MAX_LIST_ITEMS = 10_000
_INT64 = 2**63
_ARROW: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    LIST: pa.list_(pa.string()),
}
_BOOLEANS = {"true": True, "false": False}


def arrow_type(kind: ColumnType) -> pa.DataType:
    """The type of the column in the table."""
    return _ARROW[kind]


def type_of(found: pa.DataType) -> ColumnType | None:
    """The column type of an Arrow type. None: there is no such column type."""
    return next((kind for kind, wanted in _ARROW.items() if wanted == found), None)


def checked(kind: ColumnType, value: object) -> Value:
    """The canonical form of a value that has a type, as in JSON or YAML. Strings are not converted to other types.

    Raises:
        ValueError: The value has another type, or is out of the type's range.
    """
    return _CHECKS[kind](value)


def checked_text(kind: ColumnType, text: str) -> Value:
    """The canonical form of a value from a source that has only strings: a part of the key, or an object's metadata.

    A list is JSON, or items separated by commas.

    Raises:
        ValueError: The text cannot be read as the type.
    """
    if kind == "int":
        return _int(int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal() else text)
    if kind == "float":
        return _float(float(text))
    if kind == "bool":
        return _bool(_BOOLEANS.get(text.lower(), text))
    if kind == LIST:
        return _list(json.loads(text) if text.lstrip().startswith("[") else _split(text))
    return checked(kind, text)


def to_arrow(kind: ColumnType, value: Value | None) -> object:
    """The value in the form that pyarrow accepts."""
    if value is not None and kind == "date":
        return date.fromisoformat(cast("str", value))
    if value is not None and kind == "timestamp":
        return datetime.fromisoformat(cast("str", value))
    return value


def from_arrow(kind: ColumnType, value: object) -> Value | None:
    """The canonical form of a value that was read from the table."""
    return None if value is None else checked(kind, value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004  callers expect one class of error
    return value


def _string(value: object) -> str:
    # Postgres stores no NUL in JSON, and UTF-8 has no lone surrogates, which raise a ValueError too.
    if not isinstance(value, str) or "\0" in value or len(value.encode()) > MAX_STRING_BYTES:
        raise ValueError(value)
    return value


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -_INT64 <= value < _INT64:
        raise ValueError(value)
    return value


def _float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(value)  # noqa: TRY004
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(value) from error
    if not math.isfinite(number):
        raise ValueError(value)
    return number + 0.0  # no negative zero, which Postgres does not store


def _date(value: object) -> str:
    if isinstance(value, str):
        value = date.fromisoformat(value)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError(value)  # noqa: TRY004
    return value.isoformat()


def _timestamp(value: object) -> str:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError(value)  # noqa: TRY004
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        return aware.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError as error:
        raise ValueError(value) from error


def _list(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise ValueError(value)  # noqa: TRY004
    items = cast("Sequence[object]", value)
    if len(items) > MAX_LIST_ITEMS:
        raise ValueError(value)
    return [_string(item) for item in items]


def _split(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


_CHECKS: dict[ColumnType, Callable[[object], Value]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "date": _date,
    "timestamp": _timestamp,
    LIST: _list,
}
