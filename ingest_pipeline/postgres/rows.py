"""Rows of a query as objects of a dataclass, with states and kinds as members of their enums."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from psycopg.rows import BaseRowFactory, kwargs_row

T = TypeVar("T")


def row_of(cls: type[T]) -> BaseRowFactory[T]:
    """A row factory like psycopg's ``class_row``, which would leave a string where the class declares an enum.

    Args:
        cls: A dataclass with a field for each column.
    """
    enums = _enums_of(cls)  # type: ignore[arg-type]  # a class is hashable, whatever its instances are

    def make(**fields: Any) -> T:  # noqa: ANN401  the values of a row have any types
        members = {name: enum(value) for name, enum in enums.items() if (value := fields[name]) is not None}
        return cls(**(fields | members))

    return kwargs_row(make)


@cache
def _enums_of(cls: type) -> Mapping[str, type[StrEnum]]:
    """The fields of a dataclass that are enums or None. Evaluating its annotations takes as long as a small query."""
    kinds = ((name, kind) for name, hint in get_type_hints(cls).items() for kind in get_args(hint) or (hint,))
    return {name: kind for name, kind in kinds if isinstance(kind, type) and issubclass(kind, StrEnum)}
