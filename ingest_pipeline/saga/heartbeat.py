"""The heartbeat of a saga's writer, and how a saga is marked as failed.

Recovery distinguishes living writers from dead ones by the heartbeat. Only `lifecycle` and `reconcile` use this module.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.saga_timeouts import HEARTBEAT_SECONDS
from ingest_pipeline.errors import FencedError, IngestError, UnavailableError
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)


class Heartbeat:
    """A thread that renews a saga's heartbeat in the ledger, however long its writer computes.

    Args:
        corpus: The corpus of the saga.
        saga: The saga's id.
    """

    def __init__(self, corpus: Corpus, saga: UUID) -> None:
        self._corpus = corpus
        self._saga = saga
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of saga {saga}", daemon=True)
        self.fenced: FencedError | None = None
        """Why the writer can no longer publish: another process took it for dead. None while it can."""

    def start(self) -> None:
        """Start the thread; the first heartbeat is due after one interval."""
        self._context = copy_context()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, after the heartbeat in progress if there is one. May be called twice."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        self._context.run(self._beat)

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            try:
                with self._corpus.database.transaction() as connection:
                    sagas.touch(connection, self._saga)
            except FencedError as error:
                self.fenced = error
                return
            except IngestError:
                continue  # the next heartbeat may get through


def fail(corpus: Corpus, saga: UUID, reason: BaseException | str) -> None:
    """Mark an unfinished saga as failed, and delete the document rows that it planned.

    If Postgres does not answer, recovery ends the saga later. The sweep removes the saga's files.
    """
    error = reason if isinstance(reason, str) else f"{type(reason).__name__}: {reason}"
    try:
        with corpus.database.transaction() as connection:
            if sagas.mark_failed(connection, saga, error):
                prepared_documents.forget_documents(connection, saga)
    except UnavailableError:
        message = f"Saga {saga} could not be marked as failed in the ledger; recovery will end it."
        log.warning("corpus %s: %s", corpus.generation, message)
        if isinstance(reason, BaseException):
            reason.add_note(message)
