"""The scope of the work in progress: which corpus, saga and run it belongs to.

A context variable carries the scope, so coroutines, tasks and `asyncio.to_thread` inherit it. Spans, metrics and log
records take their names from it, and no function passes them on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from ingest_pipeline.types import Price


@dataclass(frozen=True, slots=True)
class Scope:
    """The names of the work in progress. An empty name is unknown."""

    corpus: str = ""
    generation: str = ""
    saga: str = ""
    run: str = ""
    """Id of the Dagster run."""
    price: Price | None = None
    """The price of the tokens that the work is billed for, if one is configured."""

    @property
    def attributes(self) -> Mapping[str, str]:
        """The known names as attributes of a span."""
        names = {"corpus": "corpus", "generation": "generation", "saga": "saga.id", "run": "run.id"}
        return {f"ingest_pipeline.{name}": value for field, name in names.items() if (value := getattr(self, field))}


_NOTHING = Scope()
_current: ContextVar[Scope] = ContextVar("telemetry_scope", default=_NOTHING)
_FIELDS = frozenset(field.name for field in fields(Scope))


def current() -> Scope:
    """The scope of the caller."""
    return _current.get()


@contextmanager
def scope(**changes: Any) -> Generator[None]:  # noqa: ANN401  the fields of `Scope`
    """Change some names for the block, and for everything that it calls or starts."""
    assert changes.keys() <= _FIELDS  # noqa: S101  the caller names fields of `Scope`
    token = _current.set(replace(_current.get(), **changes))
    try:
        yield
    finally:
        with suppress(ValueError):  # the block ended in another context, which has a scope of its own
            _current.reset(token)
