"""Prepares a saga: the long part, which takes no lock and which readers do not see.

    read ──batches──> look up, embed ──batches with vectors to come──> write data files, chunk rows

Three stages run at the same time over bounded queues, so memory does not grow with a document, and the API is kept busy
while the next document is read. Every answer of the API is recorded in the spool and the ledger before it is used:
after a crash, at most the requests that were in progress are sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ingest_pipeline.corpus.saga_timeouts import HEARTBEAT_SECONDS
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import IngestError
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.moves import StagedMoves
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.preparation.batches import ChunkBatch, PreparedDocument
from ingest_pipeline.preparation.reading.edits import EditReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.reading.read_stage import ReadStage
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors.embed_stage import EmbedStage
from ingest_pipeline.preparation.vectors.vector_resolver import VectorResolver
from ingest_pipeline.preparation.writing.moves import stage_all_moves
from ingest_pipeline.preparation.writing.write_stage import WriteStage
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.telemetry.spans import span

_MAX_BATCHES_READ = 8
# Enough to fill every request that may be in progress.
_MAX_BATCHES_RESOLVED = 40


@dataclass(slots=True)
class Prepared:
    """What a saga can publish, and the documents that failed."""

    saga: UUID
    documents: dict[str, PreparedDocument] = field(default_factory=dict[str, PreparedDocument])
    removed: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    failed: dict[str, IngestError] = field(default_factory=dict[str, IngestError])
    staged: list[StagedFragment] = field(default_factory=list[StagedFragment])
    moves: StagedMoves = field(default_factory=StagedMoves)
    """What edits change in fragments that are in the table."""


class Preparation:
    """The preparation of one saga.

    Args:
        context: The corpus with its source, recipe and limits.
        embedder: Shared by all preparations of the process, and with it the limit on concurrency.
        saga: The saga, in state ``preparing``.
        plans: The documents to publish and to remove.
        guard: The limits of the run. None: tokens are not limited.
        in_full: Keys of documents that are not read as edits. Those are added for which that fails.
        previews: Whether previews of the documents are collected.
    """

    def __init__(
        self,
        context: IngestContext,
        embedder: EmbeddingClient,
        saga: Saga,
        plans: Sequence[DocumentPlan],
        guard: SpendingGuard | None = None,
        *,
        in_full: set[str] | None = None,
        previews: bool = True,
    ) -> None:
        self._context = context
        self._previews = previews
        self._saga = saga
        self._plans = plans
        self._in_full = set[str]() if in_full is None else in_full
        guard = guard or SpendingGuard(context.corpus)
        self._calls = ExtensionCalls(context.extensions, context.corpus, saga.id, guard)
        self._resolver = VectorResolver(context.corpus, embedder, context.recipe, saga.id, guard)

    async def run(self) -> Prepared:
        """Stage everything that can be staged.

        A document that cannot be ingested is skipped and named in the result.

        Raises:
            FencedError: Another process has ended the saga.
            UnavailableError, ConfigurationError, EmbeddingResponseError: The whole saga failed.
        """
        read: asyncio.Queue[ChunkBatch | None] = asyncio.Queue(_MAX_BATCHES_READ)
        resolved: asyncio.Queue[ChunkBatch | None] = asyncio.Queue(_MAX_BATCHES_RESOLVED)
        writer = WriteStage(self._context.corpus, self._saga.id, resolved)
        try:
            with span("prepare", attributes={"ingest_pipeline.documents": len(self._plans)}):
                await self._run_stages(read, resolved, writer)
        except ExceptionGroup as group:
            raise root_cause(group) from group
        finally:
            await self._resolver.close()
        removed = [plan for plan in self._plans if plan.source is None]
        edited = [document for document in writer.documents.values() if document.edit is not None]
        moves = await asyncio.to_thread(
            stage_all_moves, self._context.corpus, self._saga, edited, writer.file_count, self._in_full
        )
        return Prepared(self._saga.id, writer.documents, removed, writer.failed, writer.staged, moves)

    async def _run_stages(
        self, read: asyncio.Queue[ChunkBatch | None], resolved: asyncio.Queue[ChunkBatch | None], writer: WriteStage
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            refresh = tasks.create_task(self._refresh_lookup_scope())
            edits = EditReader(self._context, self._saga.id, self._in_full)
            reading = ReadStage(self._context, self._plans, read, self._calls, edits, previews=self._previews)
            reading.start_chunking()
            await asyncio.to_thread(self._insert_plans)
            await self._resolver.start(tasks)
            tasks.create_task(reading.run())
            tasks.create_task(EmbedStage(self._resolver, read, resolved).run())
            await tasks.create_task(writer.run(tasks))
            refresh.cancel()

    async def _refresh_lookup_scope(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._saga.check_not_fenced()
            await asyncio.to_thread(self._resolver.refresh_lookup_scope)

    def _insert_plans(self) -> None:
        with self._context.corpus.database.transaction() as connection:
            prepared_documents.insert_documents(
                connection,
                generation=self._context.corpus.generation,
                saga=self._saga.id,
                recipe=self._context.recipe,
                documents=self._plans,
            )


def root_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report: the first `IngestError` if there is one, because the others follow from it."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, IngestError)), leaves[0])
