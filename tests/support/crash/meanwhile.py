"""What a test does in the middle of an operation of its own process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary


@contextmanager
def once_at(place: tuple[Boundary, str], action: Callable[[], object]) -> Generator[None]:
    """Do something the first time that the block passes a side of a boundary. A block that does not pass it fails."""
    waiting = [action]

    def handle(name: Boundary, side: str) -> None:
        if (name, side) == place and waiting:
            waiting.pop()()

    failpoints.install(handle)
    try:
        yield
    finally:
        failpoints.install(None)
        assert not waiting, "the place was not reached"
