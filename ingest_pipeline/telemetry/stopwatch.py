"""Measures the seconds that an iterator works, without the seconds that its consumer works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Adds up the seconds of one or several iterators."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and count the seconds that each of them takes."""
        source = iter(items)
        while True:
            start = perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.seconds += perf_counter() - start
            yield item
