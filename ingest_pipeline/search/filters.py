"""Conditions that choose by columns of the catalog in which documents a search looks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.search.column_filters import HAS, column_predicate
from ingest_pipeline.search.condition_values import Bounds, int_bounds, like, time_bounds

_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|=|<|>|\bhas\b)\s*(.+?)\s*")
_PATTERNS = ("key", "partition")
_RANGES = ("size", "chunk_count", "published_version")
_TIME = "last_modified"
_COLUMNS = (*_PATTERNS, *_RANGES, _TIME)


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Conditions that must all be true."""

    patterns: tuple[tuple[str, str], ...] = ()
    """Column and pattern: ``*`` matches any characters, ``?`` matches one."""
    bounds: tuple[tuple[str, Bounds], ...] = ()
    """Column, and its lowest and highest value."""
    predicates: tuple[str, ...] = ()
    """Conditions on the user's columns, as filters of the table."""

    def __bool__(self) -> bool:
        return bool(self.patterns or self.bounds or self.predicates)

    @property
    def needs_catalog(self) -> bool:
        """Whether the catalog has to choose the documents."""
        return bool(self.patterns or self.bounds)

    def values(self) -> dict[str, object]:
        """Parameters of the query ``matching_documents``: patterns for LIKE, and the narrowest bounds."""
        found: dict[str, object] = {name: [] for name in _PATTERNS}
        for column in (*_RANGES, _TIME):
            bounds = [pair for name, pair in self.bounds if name == column]
            found[f"least_{column}"] = max((low for low, _ in bounds if low is not None), default=None)
            found[f"greatest_{column}"] = min((high for _, high in bounds if high is not None), default=None)
        for name in _PATTERNS:
            found[name] = [like(pattern) for column, pattern in self.patterns if column == name]
        return found


def parse_filter(conditions: Iterable[str], columns: Columns = NO_COLUMNS) -> DocumentFilter:
    """Parse conditions as users write them: ``key=docs/*``, ``size>1000``, ``year>=2020``, ``tags has travel``.

    Args:
        conditions: The conditions.
        columns: The user's columns of the corpus.

    Raises:
        ConfigurationError: A condition has no known column, operator or valid value.
    """
    patterns: list[tuple[str, str]] = []
    bounds: list[tuple[str, Bounds]] = []
    predicates: list[str] = []
    declared = {one.name: one for one in columns.columns}
    for condition in conditions:
        parts = _CONDITION.fullmatch(condition)
        column, operator, value = parts.groups() if parts else ("", "", "")
        try:
            if column in _PATTERNS and operator == "=":
                patterns.append((column, value))
            elif column in _RANGES:
                bounds.append((column, int_bounds(operator, int(value))))
            elif column == _TIME:
                bounds.append((column, time_bounds(operator, value)))
            elif column in declared:
                predicates.append(column_predicate(declared[column], operator, value))
            else:
                raise _refused(condition, columns)
        except (ValueError, OverflowError) as error:
            raise _refused(condition, columns) from error
    return DocumentFilter(tuple(patterns), tuple(bounds), tuple(predicates))


def _refused(condition: str, columns: Columns) -> ConfigurationError:
    own = "".join(f", {column.name} ({column.type})" for column in columns.columns)
    return ConfigurationError(
        f"The condition {condition!r} is not a column, an operator and a value that fits the column",
        f"Columns are {', '.join(_COLUMNS)}{own}; key and partition take = with * and ?, a list takes {HAS}, the "
        "others =, <, <=, > and >=.",
    )
