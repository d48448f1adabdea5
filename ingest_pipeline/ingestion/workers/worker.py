"""The program of a worker: it ingests the parts that a run sends, until the run closes the connection or dies."""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import cast

from ingest_pipeline.config.spending_limits import NO_LIMITS
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.embedding.user_embedder import find_embedder
from ingest_pipeline.gates.judge import Gates
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.workers.messages import Assignment, Part, PartDone, PartFailed, Peers, Ready, Served
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.processes import this_process
from ingest_pipeline.telemetry.propagation import continued

_POLL_SECONDS = 0.1
_INTERRUPTED = 130


@dataclass(slots=True)
class _Worker:
    connection: Connection
    assignment: Assignment
    context: IngestContext
    embedder: EmbeddingClient
    _gates: Gates | None = None
    _sending: threading.Lock = field(default_factory=threading.Lock)

    async def serve(self) -> None:
        """Ingest parts. Cancelled when the connection ends."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio.run made one
        loop = asyncio.get_running_loop()
        parts: asyncio.Queue[Part] = asyncio.Queue()
        limits = NO_LIMITS if self.embedder.is_free else self.context.limits
        guard = SpendingGuard(self.context.corpus, limits, self.assignment.run_id, enrichment=self.context.limits)

        def stop() -> None:
            # Once only: a second cancellation would interrupt the recording of answers that are billed in any case.
            if not task.cancelling():
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, stop)

        def receive() -> None:
            while True:
                try:
                    message = self.connection.recv()
                except (EOFError, OSError):
                    loop.call_soon_threadsafe(stop)  # the run has ended or died
                    return
                if isinstance(message, Peers):
                    guard.count_writers(message.writers)
                else:
                    loop.call_soon_threadsafe(parts.put_nowait, cast("Part", message))

        threading.Thread(target=receive, name="messages of the run", daemon=True).start()
        async with self.embedder, asyncio.TaskGroup() as tasks:
            is_served = await asyncio.to_thread(self._is_served)
            self._send(Ready(this_process(), is_served))
            if not is_served:
                tasks.create_task(self._announce_served())
            while True:
                await self._ingest(await parts.get(), guard)

    async def _ingest(self, part: Part, guard: SpendingGuard) -> None:
        ingestion = Ingestion(
            self.context,
            self.embedder,
            run_id=self.assignment.run_id,
            report=self._send,
            spending=guard,
            gates=self._gates,
            previews=self.assignment.run_id is not None,
        )
        self._gates = ingestion.gates
        try:
            with continued(part.trace):
                summary = await ingestion.run(part.plans)
        except Exception as error:  # noqa: BLE001  the run raises it
            self._send(PartFailed(_sendable(error)))
        else:
            await asyncio.to_thread(self._send, PartDone(replace(summary, publications=[])))

    async def _announce_served(self) -> None:
        while not await asyncio.to_thread(self._is_served):  # noqa: ASYNC110  Postgres knows, and not this process
            await asyncio.sleep(_POLL_SECONDS)
        self._send(Served())

    def _is_served(self) -> bool:
        if self.embedder.is_free:
            return True
        with self.context.corpus.database.transaction() as connection:
            return embedding_cache.is_served(connection, self.embedder.endpoint, self.context.recipe.embedding)

    def _send(self, message: object) -> None:
        with self._sending, suppress(OSError):  # the run has ended or died, and the other thread notices it too
            self.connection.send(message)


def main() -> None:
    """Open the corpus of the run, then ingest its parts."""
    connection = Connection(int(sys.argv[1]))
    try:
        assignment = cast("Assignment", connection.recv())
        with Database(assignment.database_url) as database:
            try:
                worker = _open(connection, assignment, database)
            except Exception as error:  # noqa: BLE001  the run raises it
                connection.send(PartFailed(_sendable(error)))
                return
            asyncio.run(worker.serve())
    except (KeyboardInterrupt, asyncio.CancelledError, EOFError, BrokenPipeError):
        # The run was interrupted, has ended or died. What was published and embedded is recorded.
        sys.exit(_INTERRUPTED)


def _open(connection: Connection, assignment: Assignment, database: Database) -> _Worker:
    config = assignment.config
    _ = config.user_embedder  # loads it, so that it can be found by its key
    context = open_context(database, config)
    user_embedder = find_embedder(assignment.user_embedder) if assignment.user_embedder else None
    settings = replace(assignment.embedder, embedder=user_embedder)
    return _Worker(connection, assignment, context, create_embedder(settings, context.recipe.embedding))


def _sendable(error: Exception) -> Exception:
    """The error, or another one with its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  just pickled
    except Exception:  # noqa: BLE001  whatever an exception of a library does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
