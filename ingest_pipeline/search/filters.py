"""Conditions that choose by columns of the catalog in which documents a search looks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingest_pipeline.errors import ConfigurationError

_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|=|<|>)\s*(.+?)\s*")
_PATTERNS = ("key", "partition")
_RANGES = ("size", "chunk_count", "published_version")
_TIME = "last_modified"
_LEAST, _GREATEST = -(2**63), 2**63 - 1
_STEP = timedelta(microseconds=1)
_COLUMNS = (*_PATTERNS, *_RANGES, _TIME)
Bounds = tuple[int | datetime | None, int | datetime | None]


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Conditions that must all be true."""

    patterns: tuple[tuple[str, str], ...] = ()
    """Column and pattern: ``*`` matches any characters, ``?`` matches one."""
    bounds: tuple[tuple[str, Bounds], ...] = ()
    """Column, and its lowest and highest value."""

    def __bool__(self) -> bool:
        return bool(self.patterns or self.bounds)

    def values(self) -> dict[str, object]:
        """Parameters of the query ``matching_documents``: patterns for LIKE, and the narrowest bounds."""
        found: dict[str, object] = {name: [] for name in _PATTERNS}
        for column in (*_RANGES, _TIME):
            bounds = [pair for name, pair in self.bounds if name == column]
            found[f"least_{column}"] = max((low for low, _ in bounds if low is not None), default=None)
            found[f"greatest_{column}"] = min((high for _, high in bounds if high is not None), default=None)
        for name in _PATTERNS:
            found[name] = [_like(pattern) for column, pattern in self.patterns if column == name]
        return found


def parse_filter(conditions: Iterable[str]) -> DocumentFilter:
    """Parse conditions as users write them: ``key=docs/*``, ``size>1000``, ``last_modified>=2026-01-31``.

    Raises:
        ConfigurationError: A condition has no known column, operator or valid value.
    """
    patterns: list[tuple[str, str]] = []
    bounds: list[tuple[str, Bounds]] = []
    for condition in conditions:
        parts = _CONDITION.fullmatch(condition)
        column, operator, value = parts.groups() if parts else ("", "", "")
        try:
            if column in _PATTERNS and operator == "=":
                patterns.append((column, value))
            elif column in _RANGES:
                bounds.append((column, _int_bounds(operator, int(value))))
            elif column == _TIME:
                bounds.append((column, _time_bounds(operator, value)))
            else:
                raise _refused(condition)
        except (ValueError, OverflowError) as error:
            raise _refused(condition) from error
    return DocumentFilter(tuple(patterns), tuple(bounds))


def _refused(condition: str) -> ConfigurationError:
    return ConfigurationError(
        f"The condition {condition!r} is not a column, an operator and a value",
        f"Columns are {', '.join(_COLUMNS)}; key and partition take = with * and ?, the others =, <, <=, > and >=.",
    )


def _int_bounds(operator: str, value: int) -> Bounds:
    if not _LEAST < value < _GREATEST:
        raise OverflowError(value)
    return {
        "=": (value, value),
        "<": (None, value - 1),
        "<=": (None, value),
        ">": (value + 1, None),
        ">=": (value, None),
    }[operator]


def _time_bounds(operator: str, value: str) -> Bounds:
    """The bounds of a condition on a time. Without a zone it is UTC; ``=`` with a day alone means the whole day."""
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    end = time + timedelta(days=1) - _STEP if len(value) == len("2026-01-31") else time
    return {
        "=": (time, end),
        "<": (None, time - _STEP),
        "<=": (None, end),
        ">": (end + _STEP, None),
        ">=": (time, None),
    }[operator]


def _like(pattern: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")
