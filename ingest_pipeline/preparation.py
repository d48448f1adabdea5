"""Preparing a saga: the long part, without a lock and seen by nobody.

    read ──segments──> look up, embed ──segments with vectors to come──> write data files, chunk rows

Three stages run at once over bounded queues, so that memory does not grow with a document and the API is kept busy
while the next document is read. Every answer of the API is recorded in the ledger before it is used: a crash buys again
at most the requests then under way. A data file holds whole documents or part of one, so that a document which fails
can be left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pyarrow as pa

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import ChunkRow
from ingest_pipeline.chunk_rows import chunk_table
from ingest_pipeline.chunking import Chunker
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.embedding import Embedder
from ingest_pipeline.errors import DocumentChangedError, DocumentError, EmbeddingInputError, IngestError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance_table import StagedFragment
from ingest_pipeline.ledger import Vector
from ingest_pipeline.model import Chunk, Recipe, chunk_id
from ingest_pipeline.planning import DocumentPlan
from ingest_pipeline.reading import Reading
from ingest_pipeline.source import ObjectSource
from ingest_pipeline.vectors import RefusedTextError, VectorSupply

log = logging.getLogger(__name__)

_READERS = 4
_QUEUED_SEGMENTS = 16
_ROWS_PER_FILE = 8192
_HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Workshop:
    """What preparing needs besides the saga."""

    corpus: Corpus
    source: ObjectSource
    chunker: Chunker
    recipe: Recipe


@dataclass(slots=True)
class PreparedDocument:
    """A document whose rows are staged."""

    plan: DocumentPlan
    characters: int = 0
    chunks: int = 0
    bought: int = 0
    reused: int = 0
    files: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Prepared:
    """What a saga can publish, and what it had to leave out."""

    saga: UUID
    documents: dict[str, PreparedDocument] = field(default_factory=dict[str, PreparedDocument])
    removed: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    failed: dict[str, IngestError] = field(default_factory=dict[str, IngestError])
    staged: list[StagedFragment] = field(default_factory=list[StagedFragment])


@dataclass(frozen=True, slots=True)
class _Segment:
    """Some chunks of a document in progress, and the end of it if they are the last."""

    document: _Progress
    chunks: Sequence[Chunk]
    vectors: Sequence[asyncio.Future[Vector]] = ()
    last: bool = False
    error: IngestError | None = None


@dataclass(slots=True)
class _Progress:
    """A document on its way through the stages."""

    plan: DocumentPlan
    reading: Reading
    result: PreparedDocument
    occurrences: Counter[UUID] = field(default_factory=Counter[UUID])
    waiting: list[tuple[list[ChunkRow], pa.Table]] = field(default_factory=list[tuple[list[ChunkRow], pa.Table]])
    own_files: list[StagedFragment] = field(default_factory=list[StagedFragment])
    failed: bool = False

    @property
    def waiting_rows(self) -> int:
        return sum(table.num_rows for _, table in self.waiting)


class Preparation:
    """One saga's preparation.

    Args:
        workshop: Where things come from and go to.
        embedder: Shared by all preparations of the process, and with it the limit on requests.
        saga: In state ``preparing``.
        plans: What the saga is to publish.
    """

    def __init__(self, workshop: Workshop, embedder: Embedder, saga: UUID, plans: Sequence[DocumentPlan]) -> None:
        self._shop = workshop
        self._saga = saga
        self._plans = plans
        self._supply = VectorSupply(workshop.corpus, embedder, workshop.recipe, saga)
        self._prepared = Prepared(saga)
        self._read_segments: asyncio.Queue[_Segment | None] = asyncio.Queue(_QUEUED_SEGMENTS)
        self._vector_segments: asyncio.Queue[_Segment | None] = asyncio.Queue(_QUEUED_SEGMENTS)
        self._shared: list[_Progress] = []
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
                heartbeat = tasks.create_task(self._beat())
                await asyncio.to_thread(self._plan_rows)
                await self._supply.start(tasks)
                tasks.create_task(self._read_all())
                tasks.create_task(self._supply_all())
                await tasks.create_task(self._write_all())
                heartbeat.cancel()
        except ExceptionGroup as group:
            raise _first_of(group) from group
        await asyncio.to_thread(self._mark_prepared)
        return self._prepared

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            await asyncio.to_thread(self._touch)

    def _touch(self) -> None:
        with self._shop.corpus.database.transaction() as connection:
            ledger.touch(connection, self._saga)

    def _plan_rows(self) -> None:
        with self._shop.corpus.database.transaction() as connection:
            for plan in self._plans:
                catalog.insert_document(
                    connection,
                    corpus=self._shop.corpus.name,
                    saga=self._saga,
                    key=plan.key,
                    partition=plan.partition,
                    replaces=plan.replaces,
                    source=plan.source,
                    recipe=self._shop.recipe.fingerprint if plan.source else None,
                )
        self._prepared.removed = [plan for plan in self._plans if plan.source is None]

    def _mark_prepared(self) -> None:
        with boundary(Boundary.PREPARED), self._shop.corpus.database.transaction() as connection:
            ledger.mark_prepared(connection, self._saga)

    # Stage 1: bytes to chunks.

    async def _read_all(self) -> None:
        waiting = iter([plan for plan in self._plans if plan.source is not None])
        async with asyncio.TaskGroup() as readers:
            for _ in range(_READERS):
                readers.create_task(self._read_some(waiting))
        await self._read_segments.put(None)

    async def _read_some(self, waiting: Iterator[DocumentPlan]) -> None:
        for plan in waiting:
            assert plan.source is not None  # noqa: S101  the caller chose these
            document = _Progress(plan, Reading(plan.source), PreparedDocument(plan))
            segments = document.reading.segments(self._shop.source, self._shop.chunker)
            try:
                while (chunks := await asyncio.to_thread(next, segments, None)) is not None:
                    await self._read_segments.put(_Segment(document, chunks))
            except (DocumentError, DocumentChangedError) as error:
                await self._read_segments.put(_Segment(document, (), last=True, error=error))
            else:
                await self._read_segments.put(_Segment(document, (), last=True))

    # Stage 2: chunks to vectors that are there or on order.

    async def _supply_all(self) -> None:
        while (segment := await self._read_segments.get()) is not None:
            orders = await self._supply.order(segment.chunks)
            result = segment.document.result
            result.bought += orders.bought
            result.reused += len(segment.chunks) - orders.bought
            if self._vector_segments.full():
                # The writer may be waiting for a vector of the batch that is still being filled.
                await self._supply.flush()
            ordered = _Segment(segment.document, segment.chunks, orders.vectors, segment.last, segment.error)
            await self._vector_segments.put(ordered)
        await self._supply.flush()
        await self._vector_segments.put(None)

    # Stage 3: rows to data files and the catalog.

    async def _write_all(self) -> None:
        while (segment := await self._vector_segments.get()) is not None:
            document = segment.document
            if document.failed:
                continue
            try:
                await self._take(segment)
            except (DocumentError, DocumentChangedError) as error:
                await asyncio.to_thread(self._drop, document, error)
        await self._write_shared()

    async def _take(self, segment: _Segment) -> None:
        document = segment.document
        if segment.error is not None:
            raise segment.error
        if segment.chunks:
            document.waiting.append(await self._rows(segment))
        if segment.last:
            await self._finish(document)
        elif document.waiting_rows >= _ROWS_PER_FILE:
            await self._write_own(document)

    async def _rows(self, segment: _Segment) -> tuple[list[ChunkRow], pa.Table]:
        document, key = segment.document, segment.document.plan.key
        vectors: list[Vector] = []
        for chunk, order in zip(segment.chunks, segment.vectors, strict=True):
            try:
                vectors.append(await order)
            except RefusedTextError as error:
                problem = f"holds a chunk at {chunk.start}-{chunk.end} that the embedding API refuses: {error}"
                raise EmbeddingInputError(key, problem) from error
        rows = [self._chunk_row(document, chunk) for chunk in segment.chunks]
        texts = [chunk.text for chunk in segment.chunks]
        return rows, chunk_table(rows, texts, vectors, saga=self._saga, partition=document.plan.partition)

    def _chunk_row(self, document: _Progress, chunk: Chunk) -> ChunkRow:
        text_hash = chunk.text_hash
        occurrence = document.occurrences[text_hash]
        document.occurrences[text_hash] += 1
        number = chunk_id(document.plan.key, text_hash, occurrence)
        return ChunkRow(number, document.plan.key, chunk.ordinal, chunk.start, chunk.end, text_hash, self._saga)

    async def _finish(self, document: _Progress) -> None:
        document.result.characters = document.reading.characters
        document.result.chunks = document.reading.chunks
        if document.own_files or document.waiting_rows >= _ROWS_PER_FILE:
            await self._write_own(document, finished=True)
            return
        self._shared.append(document)
        if sum(other.waiting_rows for other in self._shared) >= _ROWS_PER_FILE:
            await self._write_shared()

    async def _write_own(self, document: _Progress, *, finished: bool = False) -> None:
        fragment = await asyncio.to_thread(self._write, [document], [document] if finished else [])
        if fragment is not None:
            document.own_files.append(fragment)
        if finished:
            self._accept([document], document.own_files)

    async def _write_shared(self) -> None:
        documents, self._shared = self._shared, []
        fragment = await asyncio.to_thread(self._write, documents, documents)
        if fragment is not None:
            self._accept(documents, [fragment])

    def _accept(self, documents: Sequence[_Progress], files: Sequence[StagedFragment]) -> None:
        for document in documents:
            document.result.files = [file.name for file in files]
            self._prepared.documents[document.plan.key] = document.result
        self._prepared.staged.extend(files)

    def _write(self, documents: Sequence[_Progress], finished: Sequence[_Progress]) -> StagedFragment | None:
        """Write the waiting rows of some documents into one data file, and record it with their chunk rows."""
        tables = [table for document in documents for _, table in document.waiting]
        fragment = self._stage(pa.concat_tables(tables)) if tables else None
        with boundary(Boundary.FRAGMENT_RECORDED), self._shop.corpus.database.transaction() as connection:
            if fragment is not None:
                ledger.record_fragment(connection, self._saga, name=fragment.name, row_count=fragment.row_count)
            rows = (row for document in documents for chunk_rows, _ in document.waiting for row in chunk_rows)
            catalog.add_chunks(connection, rows)
            for document in finished:
                catalog.finish_document(
                    connection,
                    saga=self._saga,
                    key=document.plan.key,
                    content_hash=document.reading.content_hash,
                    character_count=document.result.characters,
                    chunk_count=document.result.chunks,
                    bought=document.result.bought,
                    reused=document.result.reused,
                )
        for document in documents:
            document.waiting.clear()
        return fragment

    def _stage(self, rows: pa.Table) -> StagedFragment:
        name = f"{self._saga}-{self._file_count}.lance"
        self._file_count += 1
        return self._shop.corpus.table.stage(name, rows)

    def _drop(self, document: _Progress, error: IngestError) -> None:
        """Leave a document out. Files that hold a part of it stay unpublished, and go with the next sweep."""
        document.failed = True
        document.waiting.clear()
        self._prepared.failed[document.plan.key] = error
        with self._shop.corpus.database.transaction() as connection:
            catalog.drop_document(connection, self._saga, document.plan.key)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
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
