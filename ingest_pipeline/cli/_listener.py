"""Follows the event queue in one process, which is warm when a notice arrives, and ingests the documents it names.

Each turn compares the documents of the messages that arrived with head, ingests those that differ in one Dagster run,
and deletes the messages for which nothing is left to do.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress

import dagster as dg

from ingest_pipeline.assets.ingest_run import run_configuration
from ingest_pipeline.cli import _dagster, _runs
from ingest_pipeline.cli._execution import execute
from ingest_pipeline.cli._outages import Outages
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import DatabaseUnavailableError, IngestError, StaleError, UnavailableError
from ingest_pipeline.events.queue import EventQueue, Message
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.orchestration.build import build_resources
from ingest_pipeline.orchestration.noticed_documents import requested_run, work_off
from ingest_pipeline.orchestration.queue_readers import report_end, report_read
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.run_backoff import waiting_backoff
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import counted

_WAIT_SECONDS = 20  # the longest that SQS allows
_EXTEND_SECONDS = 20.0  # a third of the time for which messages are hidden
_BACKOFF_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 60.0
# For the connections of Dagster's storages.
_STATEMENT_MILLISECONDS = 60_000
_RECYCLE_SECONDS = 600
_MAX_CONNECTIONS = 10


class Listener:
    """Reads the queue of a corpus and ingests what its notices name.

    Args:
        settings: As `_session.postgres` yields them, with a queue.
        report: Called with each line for the user; the flag says whether it is a problem.
    """

    def __init__(self, settings: CorpusConfig, report: Callable[[str, bool], None]) -> None:
        self._settings = settings
        self._report = report
        self._names = DagsterNames.of(settings)
        self._queue = EventQueue(settings.events or "")
        self._embedder = build_resources(settings.replace(embedding_api_key=None, database_url=None)).embedder
        self._last_note = ""
        self._outages = Outages(settings.database_url or "", report)

    def listen(self) -> None:
        """Read the queue until interrupted. Services that do not answer are tried again after growing pauses.

        Raises:
            ConfigurationError: A setting is wrong, or SQS refuses.
            KeyboardInterrupt: The process was interrupted.
        """
        depth = self._queue.depth()
        self._report(
            f"Listening to {self._queue.address} for corpus {self._settings.corpus}, with "
            f"{counted(depth.waiting, 'message')} waiting; interrupt to stop.",
            False,  # noqa: FBT003  of a callback
        )
        pause = 1.0
        with self._outages.instead_of_dagsters():
            while True:
                try:
                    with self._opened() as (instance, database):
                        while True:
                            # Without a wait after an outage, because its end is reported after the turn.
                            self.turn(instance, database, 0 if self._outages.in_progress else _WAIT_SECONDS)
                            self._outages.end()
                            pause = 1.0
                except DatabaseUnavailableError as error:
                    self._outages.begin(error.message)
                except (UnavailableError, StaleError) as error:
                    self._note(str(error))
                time.sleep(pause)
                pause = min(_MAX_PAUSE_SECONDS, 2 * pause)

    def stop(self) -> None:
        """Let the sensor of the queue continue at once."""
        with suppress(IngestError), _dagster.instance(self._settings) as instance:
            report_end(instance, self._names)

    def turn(self, instance: dg.DagsterInstance, database: Database, wait_seconds: int) -> int:
        """Wait for messages and ingest what they name; returns how many messages were deleted.

        Args:
            instance: Dagster's instance, which records the run.
            database: The database of the catalog.
            wait_seconds: Seconds to wait for the first message, 20 at most.

        Raises:
            IngestError: Something that all documents need does not work. The messages appear again after a minute.
        """
        report_read(instance, self._names, by_listener=True)
        if self._is_backed_off(database):
            time.sleep(_BACKOFF_SECONDS)
            return 0
        messages = self._queue.receive(wait_seconds)
        if not messages:
            return 0
        with self._kept_hidden(instance, messages):
            found = work_off(
                messages,
                self._queue,
                lambda: self._open(database),
                lambda due: self._ingest(instance, database, due),
            )
        for warning in found.warnings:
            self._report(warning, True)  # noqa: FBT003
        return len(found.settled)

    def _ingest(self, instance: dg.DagsterInstance, database: Database, due: Sequence[DocumentPlan]) -> None:
        began, run_id = time.monotonic(), str(uuid.uuid4())
        partitions = sorted({plan.partition for plan in due})
        ops = requested_run(self._names.step, due).run_config["ops"]
        result = execute(self._settings, instance, run_id, self._names.ingest_job, ops, partitions=partitions)
        if _runs.is_interrupted(result):
            raise KeyboardInterrupt
        with database.transaction() as connection:
            progress = reports.run_progress(connection, run_id)
        self._report(
            f"{counted(progress.published - progress.removed, 'document')} published, {progress.removed:,} removed, in "
            f"{time.monotonic() - began:.1f} s; run {run_id}",
            False,  # noqa: FBT003
        )
        for problem in _runs.problems_of(result):
            self._report(problem, True)  # noqa: FBT003

    def _is_backed_off(self, database: Database) -> bool:
        context = self._open(database)
        backoff = waiting_backoff(context.corpus, run_configuration(context, self._embedder))
        self._note("" if backoff is None else backoff.note)
        return backoff is not None

    def _open(self, database: Database) -> IngestContext:
        """Open the corpus for each comparison, because a re-embedding may have replaced its generation."""
        return open_context(database, self._settings, create=False)

    @contextmanager
    def _opened(self) -> Generator[tuple[dg.DagsterInstance, Database]]:
        """Dagster's instance and the catalog, with connections that stay open.

        Otherwise Dagster opens a connection for each of the eighty statements of a run, which takes most of its time.
        Its web server keeps connections in the same way.
        """
        with _dagster.instance(self._settings) as instance, Database(self._settings.database_url or "") as database:
            instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _MAX_CONNECTIONS)
            yield instance, database

    def _note(self, note: str) -> None:
        """Report a state that may last, once."""
        if note and note != self._last_note:
            self._report(note, True)  # noqa: FBT003
        self._last_note = note

    @contextmanager
    def _kept_hidden(self, instance: dg.DagsterInstance, messages: Sequence[Message]) -> Generator[None]:
        """Keep messages hidden from other receivers while the block runs, however long a run takes."""
        ended = threading.Event()

        def extend() -> None:
            while not ended.wait(_EXTEND_SECONDS):
                # Otherwise another receiver sees them too, and finds nothing to do, or does the same work once more.
                with suppress(IngestError):
                    self._queue.extend(messages)
                try:
                    report_read(instance, self._names, by_listener=True)
                except _dagster.FAULTS as error:
                    self._outages.begin(_dagster.reason_of(error))
                else:
                    self._outages.end()

        watcher = threading.Thread(target=extend, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
