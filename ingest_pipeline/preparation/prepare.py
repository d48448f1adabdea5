"""Preparing a saga: the long part, without a lock and seen by nobody.

    read ──parcels──> look up, embed ──parcels with vectors to come──> write data files, chunk rows

Three stages run at once over bounded queues, so that memory does not grow with a document and the API is kept busy
while the next document is read. What travels is a parcel of about as many chunks as a request carries, a part of one
document or many small ones: threads, look-ups and queues are paid for by the parcel. Every answer of the API is
recorded in the ledger before it is used: a crash buys again at most the requests then under way. A data file holds
whole documents or part of one, so that a document which fails can be left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

from ingest_pipeline.corpus.protocol import HEARTBEAT_SECONDS
from ingest_pipeline.embedding.base import Embedder
from ingest_pipeline.errors import (
    DocumentChangedError,
    DocumentError,
    EmbeddingInputError,
    IngestError,
    TooRecentError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow, chunk_table
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import documents, sagas
from ingest_pipeline.preparation.batches import DocumentInProgress, Parcel, PreparedDocument, Stretch, parcels
from ingest_pipeline.preparation.read import Reading
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors import Order, RefusedTextError, VectorResolver
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.types import Chunk, ChunkRow, chunk_id

log = logging.getLogger(__name__)

_READERS = 4
_PARCEL_CHUNKS = 128
_QUEUED_READ = 8
# Enough to keep every request that may be under way full.
_QUEUED_ORDERED = 40
_ROWS_PER_FILE = 4096


@dataclass(slots=True)
class Prepared:
    """What a saga can publish, and what it had to leave out."""

    saga: UUID
    documents: dict[str, PreparedDocument] = field(default_factory=dict[str, PreparedDocument])
    removed: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    failed: dict[str, IngestError] = field(default_factory=dict[str, IngestError])
    staged: list[StagedFragment] = field(default_factory=list[StagedFragment])


class Preparation:
    """One saga's preparation.

    Args:
        context: Where things come from and go to.
        embedder: Shared by all preparations of the process, and with it the limit on requests.
        saga: In state ``preparing``.
        plans: What the saga is to publish.
        guard: Of the run; None: no limit on tokens.
    """

    def __init__(
        self,
        context: IngestContext,
        embedder: Embedder,
        saga: Saga,
        plans: Sequence[DocumentPlan],
        guard: SpendingGuard | None = None,
    ) -> None:
        self._context = context
        self._saga = saga
        self._plans = plans
        self._supply = VectorResolver(context.corpus, embedder, context.recipe, saga.id, guard)
        self._prepared = Prepared(saga.id)
        self._read: asyncio.Queue[Parcel | None] = asyncio.Queue(_QUEUED_READ)
        self._ordered: asyncio.Queue[Parcel | None] = asyncio.Queue(_QUEUED_ORDERED)
        self._all_read = False
        self._shared: list[DocumentInProgress] = []
        self._writing: asyncio.Task[None] | None = None
        self._file_count = 0

    async def run(self) -> Prepared:
        """Stage everything that can be staged.

        A document that cannot be ingested is left out and named in the result.

        Raises:
            FencedError: Somebody settled the saga meanwhile.
            UnavailableError, ConfigurationError, EmbeddingResponseError: The whole saga failed.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                refreshing = tasks.create_task(self._refresh_lookup_scope())
                await asyncio.to_thread(self._plan_rows)
                await self._supply.start(tasks)
                tasks.create_task(self._read_all())
                tasks.create_task(self._supply_all())
                await tasks.create_task(self._write_all())
                refreshing.cancel()
        except ExceptionGroup as group:
            raise first_of(group) from group
        finally:
            await self._supply.close()
        return self._prepared

    async def _refresh_lookup_scope(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._saga.check_not_fenced()
            await asyncio.to_thread(self._supply.refresh_lookup_scope)

    def _plan_rows(self) -> None:
        with self._context.corpus.database.transaction() as connection:
            documents.insert_documents(
                connection,
                generation=self._context.corpus.generation,
                saga=self._saga.id,
                recipe=self._context.recipe.fingerprint,
                documents=self._plans,
            )
        self._prepared.removed = [plan for plan in self._plans if plan.source is None]

    # Stage 1: bytes to chunks.

    async def _read_all(self) -> None:
        waiting = iter([plan for plan in self._plans if plan.source is not None])
        async with asyncio.TaskGroup() as readers:
            for _ in range(_READERS):
                readers.create_task(self._read_some(waiting))
        await self._read.put(None)

    async def _read_some(self, waiting: Iterator[DocumentPlan]) -> None:
        cut = parcels(self._stretches(waiting), _PARCEL_CHUNKS)
        while (parcel := await asyncio.to_thread(next, cut, None)) is not None:
            await self._read.put(parcel)

    def _stretches(self, waiting: Iterator[DocumentPlan]) -> Iterator[Stretch]:
        for plan in waiting:
            assert plan.source is not None  # noqa: S101  the caller chose these
            document = DocumentInProgress(plan, Reading(plan.source, self._context.recipe), PreparedDocument(plan))
            try:
                for chunks in document.reading.stretches(
                    self._context.source, self._context.chunker, self._context.limits
                ):
                    yield Stretch(document, chunks)
            except (DocumentError, DocumentChangedError) as error:
                yield Stretch(document, (), last=True, error=error)
            else:
                yield Stretch(document, (), last=True, error=self._exclusion_reason(document))

    def _exclusion_reason(self, document: DocumentInProgress) -> TooRecentError | None:
        """Why a document that was read to its end is not published yet, None if it is.

        Writing a file anew often begins with emptying it: the old rows stay until it is sure to be meant so.
        """
        source, seconds = document.reading.source, self._context.min_age_seconds
        if document.reading.chunks or not source.is_too_recent(seconds, datetime.now(UTC)):
            return None
        return TooRecentError(f"Document {source.key!r} is empty and was modified less than {seconds} seconds ago")

    # Stage 2: chunks to vectors that are there or on order.

    async def _supply_all(self) -> None:
        while taken := await self._take_read():
            stretches = [stretch for parcel in taken for stretch in parcel]
            orders = iter(await self._supply.order([chunk for stretch in stretches for chunk in stretch.chunks]))
            for parcel in taken:
                ordered = [replace(stretch, orders=list(islice(orders, len(stretch.chunks)))) for stretch in parcel]
                if self._ordered.full():
                    # The writer may be waiting for a vector of the batch that is still being filled.
                    await self._supply.flush()
                await self._ordered.put(ordered)
        await self._supply.flush()
        await self._ordered.put(None)

    async def _take_read(self) -> list[Parcel]:
        """All parcels that wait, so that one look-up serves many where looking up takes longer than reading.

        There are none at the end.
        """
        taken: list[Parcel] = []
        while not (self._all_read or (taken and self._read.empty())):
            parcel = await self._read.get()
            if parcel is None:
                self._all_read = True
            else:
                taken.append(parcel)
        return taken

    # Stage 3: rows to data files and the catalog.

    async def _write_all(self) -> None:
        while (parcel := await self._ordered.get()) is not None:
            for stretch in parcel:
                if not stretch.document.failed:
                    await self._take_or_drop(stretch)
        await self._write_shared()
        await self._until_written()

    async def _take_or_drop(self, stretch: Stretch) -> None:
        try:
            await self._take(stretch)
        except (DocumentError, DocumentChangedError, TooRecentError) as error:
            await self._until_written()
            await asyncio.to_thread(self._drop, stretch.document, error)

    async def _take(self, stretch: Stretch) -> None:
        document = stretch.document
        if stretch.error is not None:
            raise stretch.error
        for chunk, order in zip(stretch.chunks, stretch.orders, strict=True):
            document.waiting.append(await self._row(document, chunk, order))
        if stretch.last:
            await self._finish(document)
        elif len(document.waiting) >= _ROWS_PER_FILE:
            await self._write_own(document)

    async def _row(self, document: DocumentInProgress, chunk: Chunk, order: Order) -> TableRow:
        key = document.plan.key
        try:
            vector = await order.vector
        except RefusedTextError as error:
            problem = f"holds a chunk at {chunk.start}-{chunk.end} that the embedding API refuses: {error}"
            raise EmbeddingInputError(key, problem) from error
        document.result.count(chunk, order.wanted)
        number = chunk_id(key, order.text_hash, document.texts.count(order.text_hash))
        row = ChunkRow(number, key, chunk.ordinal, chunk.start, chunk.end, order.text_hash, self._saga.id)
        return TableRow(row, document.plan.partition, chunk.text, vector)

    async def _finish(self, document: DocumentInProgress) -> None:
        document.result.characters = document.reading.characters
        if document.has_own_files or len(document.waiting) >= _ROWS_PER_FILE:
            await self._write_own(document, finished=True)
            return
        self._shared.append(document)
        if sum(len(other.waiting) for other in self._shared) >= _ROWS_PER_FILE:
            await self._write_shared()

    async def _write_own(self, document: DocumentInProgress, *, finished: bool = False) -> None:
        document.has_own_files = True
        await self._write([document], finished=finished)

    async def _write_shared(self) -> None:
        documents, self._shared = self._shared, []
        if documents:
            await self._write(documents, finished=True)

    async def _write(self, documents: Sequence[DocumentInProgress], *, finished: bool) -> None:
        """Begin a data file with the waiting rows of some documents; one is written while the next fills."""
        await self._until_written()
        rows = [row for document in documents for row in document.waiting]
        for document in documents:
            document.waiting = []
        self._writing = self._tasks.create_task(self._write_file(documents, rows, finished=finished))

    async def _until_written(self) -> None:
        if self._writing is not None:
            await self._writing

    async def _write_file(
        self, documents: Sequence[DocumentInProgress], rows: Sequence[TableRow], *, finished: bool
    ) -> None:
        fragment = await asyncio.to_thread(self._stage_and_record, rows, documents if finished else [])
        if fragment is not None:
            for document in documents:
                document.files.append(fragment)
        if finished:
            self._accept(documents)

    def _accept(self, documents: Sequence[DocumentInProgress]) -> None:
        """Take documents that are whole and stand in the same files."""
        files = documents[0].files
        for document in documents:
            document.result.files = [file.name for file in files] if document.result.chunks else []
            self._prepared.documents[document.plan.key] = document.result
        self._prepared.staged.extend(files)

    def _stage_and_record(
        self, rows: Sequence[TableRow], finished: Sequence[DocumentInProgress]
    ) -> StagedFragment | None:
        """Write rows into one data file, and record it with their chunk rows and the documents that they finish."""
        fragment = self._stage(rows) if rows else None
        with boundary(Boundary.FRAGMENT_RECORDED), self._context.corpus.database.transaction() as connection:
            if fragment is not None:
                sagas.record_fragment(connection, self._saga.id, name=fragment.name, row_count=fragment.row_count)
            documents.add_chunks(connection, (row.chunk for row in rows))
            documents.finish_documents(connection, self._saga.id, [document.facts() for document in finished])
        return fragment

    def _stage(self, rows: Sequence[TableRow]) -> StagedFragment:
        name = f"{self._saga.id}-{self._file_count}.lance"
        self._file_count += 1
        return self._context.corpus.table.stage(name, chunk_table(rows))

    def _drop(self, document: DocumentInProgress, error: IngestError) -> None:
        """Leave a document out. Files that hold a part of it stay unpublished, and go with the next sweep."""
        document.failed = True
        document.waiting = []
        self._prepared.failed[document.plan.key] = error
        with self._context.corpus.database.transaction() as connection:
            documents.drop_document(connection, self._saga.id, document.plan.key)


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The cause worth telling: one of our errors if there is one; the others are its consequences."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, IngestError)), leaves[0])
