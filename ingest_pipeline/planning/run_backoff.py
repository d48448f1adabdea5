"""Runs that failed as a whole: how long sensors wait before they request the next one, and when they stop.

A wrong key, a wrong width or an endpoint that is down fails every run alike, and some of these failures cost money. The
waits double from a minute to an hour. A failure that somebody has to mend is tried five times; one that may pass by
itself, a hundred times, which takes four days. After a run that met the limit on its tokens none is requested, after
one that met the day's limit none before the next day. Other settings, a run that publishes documents, `ingest` and
`retry` begin anew. Runs that people launch are not held back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import SpendingLimitError, UnavailableError
from ingest_pipeline.postgres import sagas
from ingest_pipeline.postgres.database import Connection, sanitize_text
from ingest_pipeline.postgres.sql import query

_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=1)
_ATTEMPTS = 5
_ATTEMPTS_IF_PASSING = 100
# A machine that is restarted twice says nothing about the documents.
_DEATHS_FORGIVEN = 2


@dataclass(frozen=True, slots=True)
class RunBackoff:
    """Why sensors request no runs."""

    attempts: int
    error: str
    failed_at: datetime
    next_at: datetime | None
    """None: not before the settings change, or `ingest` or `retry` is run."""
    configuration: str | None
    """Fingerprint of the settings that failed. None: the runs died, whatever the settings."""

    @property
    def note(self) -> str:
        """What sensors, `status` and the check `freshness` show."""
        again = "The next run is requested after the settings change, or after `ingest-pipeline ingest` or `retry`."
        if self.next_at is not None:
            again = f"The next run is requested at {self.next_at:%Y-%m-%d %H:%M:%S %Z}, or once the settings change."
        return f"The last {self.attempts} runs failed as a whole: {self.error} {again}"


def record_run_failure(corpus: Corpus, configuration: str, error: Exception) -> None:
    """Count a run that failed as a whole.

    Args:
        corpus: Whose run.
        configuration: Fingerprint of the settings that it ran with.
        error: Why it failed.
    """
    with corpus.database.transaction() as connection:
        connection.execute(
            query("record_run_failure"),
            {
                "generation": corpus.generation,
                "configuration": configuration,
                "passing": isinstance(error, UnavailableError),
                "over_limit": isinstance(error, SpendingLimitError),
                "over_limit_until": error.until if isinstance(error, SpendingLimitError) else None,
                "error": sanitize_text(" ".join(str(error).split()) or type(error).__name__),
            },
        )


def forgive_runs(corpus: Corpus) -> None:
    """Forget the runs that failed or died: the next one may be requested at once."""
    with corpus.database.transaction() as connection:
        connection.execute(query("forgive_runs"), {"generation": corpus.generation})


def read_backoff(connection: Connection, corpus: str) -> RunBackoff | None:
    """What runs failed of, whether or not its time is over; None if the last one did not fail as a whole."""
    died = _backoff_of_deaths(connection, corpus)
    row = connection.execute(query("read_run_failure"), {"generation": corpus}).fetchone()
    if row is None:
        return died
    attempts, passing = row["attempts"], row["passing"]
    next_at = _next_at(row["failed_at"], attempts, _ATTEMPTS_IF_PASSING if passing else _ATTEMPTS)
    if row["over_limit"]:
        next_at = row["over_limit_until"]
    return RunBackoff(attempts, row["error"], row["failed_at"], next_at, row["configuration"])


def waiting_backoff(corpus: Corpus, configuration: str) -> RunBackoff | None:
    """What keeps sensors from requesting a run at this moment, with these settings."""
    with corpus.database.transaction() as connection:
        found = read_backoff(connection, corpus.generation)
        now = sagas.clock(connection)
        if found is not None and found.configuration not in (None, configuration):
            found = _backoff_of_deaths(connection, corpus.generation)
    if found is None or (found.next_at is not None and found.next_at <= now):
        return None
    return found


def _backoff_of_deaths(connection: Connection, corpus: str) -> RunBackoff | None:
    row = connection.execute(query("count_deaths"), {"generation": corpus}).fetchone()
    if row is None or row["deaths"] <= _DEATHS_FORGIVEN:
        return None
    attempts = row["deaths"] - _DEATHS_FORGIVEN
    error = "Their processes ended before anything was published, as for lack of memory."
    return RunBackoff(row["deaths"], error, row["last_at"], _next_at(row["last_at"], attempts, _ATTEMPTS), None)


def _next_at(failed_at: datetime, attempts: int, limit: int) -> datetime | None:
    if attempts >= limit:
        return None
    doublings = min(attempts - 1, 10)  # far beyond the longest wait
    return failed_at + min(_LONGEST_WAIT, _FIRST_WAIT * (1 << doublings))
