"""Conditions on the user's columns, as filters of the table."""

from __future__ import annotations

from datetime import datetime

from ingest_pipeline.columns.declaration import Column
from ingest_pipeline.columns.values import LIST, checked, checked_text
from ingest_pipeline.lance.filters import quoted
from ingest_pipeline.search.condition_values import like, time_bounds

HAS = "has"
_COMPARISONS = ("=", "<", "<=", ">", ">=")


def column_predicate(column: Column, operator: str, text: str) -> str:
    """The filter of the table for a condition such as `year>=2020` or `tags has travel`.

    Raises:
        ValueError: The operator or the value does not fit the column.
    """
    if column.type == LIST:
        if operator != HAS:
            raise ValueError(operator)
        return f"array_has({column.name}, {quoted(str(checked('string', text)))})"
    if operator not in _COMPARISONS:
        raise ValueError(operator)
    if column.type == "timestamp":
        return _between(column.name, *time_bounds(operator, text))
    if column.type == "string" and operator == "=" and set(text) & {"*", "?"}:
        return f"{column.name} LIKE {quoted(like(text))}"
    value = checked_text(column.type, text)
    if column.type == "string":
        return f"{column.name} {operator} {quoted(str(value))}"
    if column.type == "date":
        return f"{column.name} {operator} date {quoted(str(value))}"
    return f"{column.name} {operator} {value}"


def _between(name: str, low: datetime | int | None, high: datetime | int | None) -> str:
    bounds = ((">=", low), ("<=", high))
    return " AND ".join(f"{name} {sign} timestamp {quoted(str(at))}" for sign, at in bounds if at is not None)
