"""Filters over a table's columns, in the dialect of SQL that Lance reads."""

from __future__ import annotations

from collections.abc import Iterable


def quoted(value: str) -> str:
    """A string literal of Lance's filter language. In double quotes, the text would be a column's name."""
    return "'" + value.replace("'", "''") + "'"


def one_of(column: str, values: Iterable[str]) -> str:
    """A filter for rows whose column has one of the values."""
    return f"{column} IN ({', '.join(quoted(value) for value in values)})"
