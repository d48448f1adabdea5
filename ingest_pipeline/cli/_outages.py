"""What `listen` reports while Postgres does not answer: one line when the connection is lost, one when it is back."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

from ingest_pipeline.cli import _dagster
from ingest_pipeline.postgres.url import without_password

_DAGSTERS_RETRIES = "dagster_postgres"
_DAGSTERS_COMPLAINT = "Exception while writing logger call to event log"


class Outages:
    """Reports that Postgres is lost, however many parts of the process notice it, and that it answers again.

    Args:
        url: The url of Postgres, whose password is shown nowhere.
        report: Called with each line for the user; the flag says whether it is a problem.
    """

    def __init__(self, url: str, report: Callable[[str, bool], None]) -> None:
        self._url = url
        self._report = report
        self._lock = threading.Lock()
        self._since: float | None = None

    @property
    def in_progress(self) -> bool:
        """Whether Postgres is lost."""
        return self._since is not None

    def begin(self, reason: str) -> None:
        """Report that the connection is lost, unless it was reported."""
        with self._lock:
            if self._since is not None:
                return
            self._since = time.monotonic()
        reason = without_password(" ".join(reason.split()), self._url)
        self._report(
            f"The connection to Postgres was lost ({reason}). It is tried again; notices stay in the queue.",
            True,  # noqa: FBT003  of a callback
        )

    def end(self) -> None:
        """Report that Postgres answers, if it was lost."""
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            self._report(
                f"The connection to Postgres is back after {time.monotonic() - since:.0f} s. Notices that were in "
                "progress appear in the queue again within a minute.",
                False,  # noqa: FBT003  of a callback
            )

    @contextmanager
    def instead_of_dagsters(self) -> Generator[None]:
        """Replace what Dagster writes to standard error about lost connections, which is SQL in many lines."""
        root = logging.getLogger()
        root.addFilter(self._is_no_retry)
        try:
            with redirect_stderr(cast("TextIO", _WithoutComplaints(sys.stderr))):
                yield
        finally:
            root.removeFilter(self._is_no_retry)

    def _is_no_retry(self, record: logging.LogRecord) -> bool:
        if _DAGSTERS_RETRIES not in record.pathname:
            return True
        error = next((one for one in _arguments(record) if isinstance(one, Exception)), None)
        self.begin(_dagster.reason_of(error) if error is not None else record.getMessage())
        return False


class _WithoutComplaints:
    """A stream that omits what Dagster writes when an event cannot be stored; it then raises the error, or retries."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith(_DAGSTERS_COMPLAINT) else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the stream has
        return getattr(self._stream, name)


def _arguments(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()
