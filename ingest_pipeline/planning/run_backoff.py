"""The backoff of runs that failed as a whole: how long sensors wait before they request the next one.

A wrong key, a wrong width of the vectors or an endpoint that is down fails every run in the same way, and some of these
failures cost money. The delays double from one minute to one hour. After a permanent failure, runs are requested five
times; after a temporary one a hundred times, which takes four days. A run that published documents before it failed
made progress, so it is not counted.

After a run that reached its own token limit, no run is requested; after a run that reached the daily limit, none before
the next day. That holds also if the run published documents, because the next run would spend as much again.

Changed settings, a run that publishes documents, `ingest` and `retry` reset the backoff. Runs that the user launches
are not delayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import SpendingLimitError, UnavailableError
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.texts import sanitize_text

_FIRST_DELAY = timedelta(minutes=1)
_MAX_DELAY = timedelta(hours=1)
_MAX_ATTEMPTS = 5
_MAX_TRANSIENT_ATTEMPTS = 100
# Two deaths in a row may be restarts of a machine and not the documents' fault.
_MAX_DEATHS_IGNORED = 2


@dataclass(frozen=True, slots=True)
class RunBackoff:
    """Why sensors request no runs, and until when."""

    attempts: int
    error: str
    failed_at: datetime
    next_at: datetime | None
    """None: not before the settings change, or `ingest` or `retry` is run."""
    configuration: str | None
    """Fingerprint of the settings that failed. None: the runs died, whatever the settings."""
    over_limit: bool = False
    """Whether the last run reached a limit on tokens."""

    @property
    def note(self) -> str:
        """The text that sensors, `status` and the check `freshness` show."""
        again = "The next run is requested after the settings change, or after `ingest-pipeline ingest` or `retry`."
        if self.next_at is not None:
            again = f"The next run is requested at {self.next_at:%Y-%m-%d %H:%M:%S %Z}, or once the settings change."
        if self.over_limit:
            return f"The last run stopped at a limit on tokens: {self.error} {again}"
        runs = "run" if self.attempts == 1 else f"{self.attempts} runs"
        return f"The last {runs} failed as a whole: {self.error} {again}"


def delays_next_run(error: Exception, *, has_published: bool) -> bool:
    """Whether sensors wait after a run that this error ended.

    Args:
        error: Why the run failed.
        has_published: Whether the run published documents before that.
    """
    return isinstance(error, SpendingLimitError) or not has_published


def record_run_failure(corpus: Corpus, configuration: str, error: Exception) -> None:
    """Count a run that failed, so that sensors wait before they request the next one.

    Args:
        corpus: The corpus of the run.
        configuration: Fingerprint of the run's settings.
        error: Why the run failed.
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
    """Reset the backoff: the next run may be requested at once."""
    with corpus.database.transaction() as connection:
        connection.execute(query("forgive_runs"), {"generation": corpus.generation})


def read_backoff(connection: Connection, corpus: str) -> RunBackoff | None:
    """The backoff, even if its delay is over; None if the last run did not fail as a whole."""
    died = _backoff_of_deaths(connection, corpus)
    row = connection.execute(query("read_run_failure"), {"generation": corpus}).fetchone()
    if row is None:
        return died
    attempts, passing = row["attempts"], row["passing"]
    next_at = _next_at(row["failed_at"], attempts, _MAX_TRANSIENT_ATTEMPTS if passing else _MAX_ATTEMPTS)
    if row["over_limit"]:
        next_at = row["over_limit_until"]
    return RunBackoff(attempts, row["error"], row["failed_at"], next_at, row["configuration"], row["over_limit"])


def waiting_backoff(corpus: Corpus, configuration: str) -> RunBackoff | None:
    """The backoff that keeps sensors from requesting a run at this moment, with these settings."""
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
    if row is None or row["deaths"] <= _MAX_DEATHS_IGNORED:
        return None
    attempts = row["deaths"] - _MAX_DEATHS_IGNORED
    error = "Their processes exited before anything was published, for example for lack of memory."
    return RunBackoff(row["deaths"], error, row["last_at"], _next_at(row["last_at"], attempts, _MAX_ATTEMPTS), None)


def _next_at(failed_at: datetime, attempts: int, limit: int) -> datetime | None:
    if attempts >= limit:
        return None
    doublings = min(attempts - 1, 10)  # far beyond the longest delay
    return failed_at + min(_MAX_DELAY, _FIRST_DELAY * (1 << doublings))
