"""Values of conditions: ranges of numbers and times, and patterns."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_LEAST, _GREATEST = -(2**63), 2**63 - 1
_STEP = timedelta(microseconds=1)
Bounds = tuple[int | datetime | None, int | datetime | None]


def int_bounds(operator: str, value: int) -> Bounds:
    """The bounds of a condition on a number."""
    if not _LEAST < value < _GREATEST:
        raise OverflowError(value)
    return {
        "=": (value, value),
        "<": (None, value - 1),
        "<=": (None, value),
        ">": (value + 1, None),
        ">=": (value, None),
    }[operator]


def time_bounds(operator: str, value: str) -> Bounds:
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


def like(pattern: str) -> str:
    """A pattern with * and ? as one for LIKE."""
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")
