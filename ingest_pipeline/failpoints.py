"""Named boundaries around every effect that the outside can see, so that a test can stop the program at each of them.

Off, a boundary costs two comparisons. On, the environment variable ``INGEST_FAILPOINTS`` says what happens where::

    INGEST_FAILPOINTS="lance commit:after=kill;batch recorded:before=stop@3"

ends the process with SIGKILL right after the first Lance commit, and stops it before the third batch is recorded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum


class Boundary(StrEnum):
    """The effects, in the order of a publication, then of its undoing."""

    SOURCE_READ = "source read"
    SAGA_BEGUN = "saga begun"
    BATCH_SENT = "batch sent"
    BATCH_RECORDED = "batch recorded"
    ORDER_PLACED = "order placed"
    ORDER_SUBMITTED = "order submitted"
    ORDER_COLLECTED = "order collected"
    FRAGMENT_WRITTEN = "fragment written"
    FLUSHED = "flushed"
    FRAGMENT_RECORDED = "fragment recorded"
    INDEX_BUILT = "index built"
    PREPARED = "prepared"
    LOCK_TAKEN = "lock taken"
    ROWS_WRITTEN = "rows written"
    HEAD_MOVED = "head moved"
    ROWS_REMOVED = "rows removed"
    LANCE_COMMIT = "lance commit"
    VERSION_CHECKED = "version checked"
    COMMIT = "commit"
    ACKNOWLEDGED = "acknowledged"
    RESTORED = "restored"
    SETTLED = "settled"
    RETIRED = "retired"
    VERSIONS_REMOVED = "versions removed"
    FILE_REMOVED = "file removed"
    GENERATION_MOVED = "generation moved"
    TABLE_DROPPED = "table dropped"
    RELOCATED = "relocated"


Handler = Callable[[Boundary, str], None]
_handler: Handler | None = None


def install(handler: Handler | None) -> None:
    """Let ``handler(boundary, side)`` run at every boundary; side is ``before`` or ``after``. None switches off."""
    global _handler  # noqa: PLW0603  one switch for the process is the point: a boundary must cost nothing when off
    _handler = handler


@contextmanager
def boundary(name: Boundary) -> Generator[None]:
    """Stand around one effect. The second side is reached only if the effect did not raise."""
    if _handler is not None:
        _handler(name, "before")
    yield
    if _handler is not None:
        _handler(name, "after")


def install_from_environment() -> None:
    """Read ``INGEST_FAILPOINTS``; absent or empty, nothing is installed."""
    wanted = os.environ.get("INGEST_FAILPOINTS", "")
    if wanted:
        install(_signaller(wanted))


def _signaller(wanted: str) -> Handler:
    """A handler which sends this process a signal at the n-th passage of a side."""
    signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
    remaining: dict[str, tuple[int, signal.Signals]] = {}
    for entry in wanted.split(";"):
        place, action = entry.rsplit("=", 1)
        kind, _, count = action.partition("@")
        remaining[place.strip()] = (int(count or 1), signals[kind])

    def handle(name: Boundary, side: str) -> None:
        place = f"{name}:{side}"
        if place not in remaining:
            return
        count, number = remaining.pop(place)
        if count > 1:
            remaining[place] = (count - 1, number)
        else:
            # To this thread, not to the process: else another may take it, and this one runs on for a while.
            signal.pthread_kill(threading.get_ident(), number)

    return handle


install_from_environment()
