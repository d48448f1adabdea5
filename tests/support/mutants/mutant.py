"""One disabled safeguard, and how it is disabled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """A function that disables a safeguard, and the test that has to fail then."""

    apply: Callable[[], None]
    caught_by: str


def plug(owner: Any, name: str, replacement: object) -> None:
    """Replace a function or a property, private ones included."""
    getattr(owner, name)  # fails if the safeguard was renamed
    setattr(owner, name, replacement)


def answering(value: object) -> Callable[..., Any]:
    """A function that only returns a value."""

    def answer(*_: object, **__: object) -> object:
        return value

    return answer
