"""Named boundaries around every effect outside the process, so that a test can stop the process at each boundary.

Without actions, a boundary costs two comparisons. The environment variable ``INGEST_FAILPOINTS`` sets actions::

    INGEST_FAILPOINTS="lance commit:after=kill;batch recorded:before=stop@3"

kills the process with SIGKILL right after the first Lance commit, or stops it before the third batch is recorded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum


class Boundary(StrEnum):
    """The effects, in the order in which a publication passes them; then those of recovery and maintenance."""

    SOURCE_READ = "source read"
    SAGA_BEGUN = "saga begun"
    EXTENSION_CALLED = "extension called"
    RESULT_RECORDED = "result recorded"
    BATCH_SENT = "batch sent"
    BATCH_SPOOLED = "batch spooled"
    BATCH_RECORDED = "batch recorded"
    BATCH_JOB_RECORDED = "batch job recorded"
    BATCH_JOB_SUBMITTED = "batch job submitted"
    BATCH_JOB_COLLECTED = "batch job collected"
    FRAGMENT_WRITTEN = "fragment written"
    FLUSHED = "flushed"
    FRAGMENT_RECORDED = "fragment recorded"
    INDEX_BUILT = "index built"
    PREPARED = "prepared"
    CANDIDATE_MADE = "candidate made"
    CANDIDATE_REMOVED = "candidate removed"
    JUDGED = "judged"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    LOCK_TAKEN = "lock taken"
    ROWS_WRITTEN = "rows written"
    HEAD_MOVED = "head moved"
    ROWS_REMOVED = "rows removed"
    LANCE_COMMIT = "lance commit"
    VERSION_CHECKED = "version checked"
    COMMIT = "commit"
    MANIFEST_INSTALLED = "manifest installed"
    ACKNOWLEDGED = "acknowledged"
    RESTORED = "restored"
    SETTLED = "settled"
    RETIRED = "retired"
    VERSIONS_REMOVED = "versions removed"
    FILE_REMOVED = "file removed"
    GENERATION_MOVED = "generation moved"
    TABLE_DROPPED = "table dropped"
    RELOCATED = "relocated"
    STORE_CHECKED = "store checked"
    ERASURE_RECORDED = "erasure recorded"
    ERASURE_NOTED = "erasure noted"
    DAGSTER_ERASED = "dagster erased"
    TABLES_REWRITTEN = "tables rewritten"
    ERASED = "erased"
    NOTICES_RECEIVED = "notices received"
    NOTICES_EXTENDED = "notices extended"
    NOTICES_DELETED = "notices deleted"


Handler = Callable[[Boundary, str], None]
_handler: Handler | None = None


def install(handler: Handler | None) -> None:
    """Call ``handler(boundary, side)`` at every boundary; side is ``before`` or ``after``. None removes the handler."""
    global _handler  # noqa: PLW0603  one handler for the process, so that a boundary costs almost nothing without one
    _handler = handler


@contextmanager
def boundary(name: Boundary) -> Generator[None]:
    """Enclose one effect. The side ``after`` is passed only if the effect did not raise an error."""
    if _handler is not None:
        _handler(name, "before")
    yield
    if _handler is not None:
        _handler(name, "after")


def install_from_environment() -> None:
    """Install the actions of ``INGEST_FAILPOINTS``, or nothing if the variable is absent or empty."""
    wanted = os.environ.get("INGEST_FAILPOINTS", "")
    if wanted:
        install(_signaller(wanted))


def _signaller(wanted: str) -> Handler:
    """A handler that sends this process a signal when a side is passed for the n-th time."""
    signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
    remaining: dict[str, tuple[int, signal.Signals]] = {}
    for entry in wanted.split(";"):
        side_of_boundary, action = entry.rsplit("=", 1)
        kind, _, count = action.partition("@")
        remaining[side_of_boundary.strip()] = (int(count or 1), signals[kind])

    def handle(name: Boundary, side: str) -> None:
        passed = f"{name}:{side}"
        if passed not in remaining:
            return
        count, number = remaining.pop(passed)
        if count > 1:
            remaining[passed] = (count - 1, number)
        else:
            # To this thread, not to the process: otherwise another thread may receive the signal while this one
            # continues.
            signal.pthread_kill(threading.get_ident(), number)

    return handle


install_from_environment()
