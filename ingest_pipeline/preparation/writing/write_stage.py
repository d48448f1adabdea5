"""The third stage of a preparation: writes chunks with vectors into data files and catalog rows.

A data file contains either whole documents or a part of one document, so that a failed document can be skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import EmbeddingInputError, IngestError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow, chunk_table
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.catalog.chunk_ranges import share_chunks
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.preparation.batches import ChunkBatch, DocumentInProgress, PreparedDocument
from ingest_pipeline.preparation.vectors.requests import PendingVector, RefusedTextError
from ingest_pipeline.telemetry.spans import POSTGRES, span, stage
from ingest_pipeline.types import Chunk, ChunkRow

_ROWS_PER_FILE = 4096
# So few vectors take the memory of those before. More would take new memory, which the kernel clears first.
_ROWS_AT_ONCE = 512
# One is written while another is flushed and recorded.
_MAX_FILES_IN_PROGRESS = 2


class WriteStage:
    """Writes data files while the rows of the next one arrive.

    Args:
        corpus: The corpus whose table and catalog are written.
        saga: The saga, in state ``preparing``.
        source: Has the batches with vectors, and None at the end.
    """

    def __init__(self, corpus: Corpus, saga: UUID, source: asyncio.Queue[ChunkBatch | None]) -> None:
        self._corpus = corpus
        self._saga = saga
        self._source = source
        self.documents: dict[str, PreparedDocument] = {}
        """Documents that can be published, by key."""
        self.failed: dict[str, IngestError] = {}
        """Documents that cannot be ingested, by key."""
        self.staged: list[StagedFragment] = []
        """Data files of the documents that can be published."""
        self._shared: list[DocumentInProgress] = []
        self._shared_rows = 0
        self._writing: deque[asyncio.Task[None]] = deque()
        self.file_count = 0
        """Number of data files so far."""

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Write every batch. Each data file is written by a task of the group.

        Raises:
            UnavailableError, EmbeddingResponseError: The whole saga fails.
        """
        self._tasks = tasks
        with span("write"):
            while (batch := await self._source.get()) is not None:
                await self._add_batch(batch)
            await self._write_shared()
            await self._wait_for_files()

    async def _add_batch(self, batch: ChunkBatch) -> None:
        for document, chunk, pending in batch:
            if document.failed:
                continue
            try:
                document.rows.append(await self._row(document, chunk, pending))
            except EmbeddingInputError as error:
                await self._fail(document, error)
                continue
            if len(document.rows) >= _ROWS_PER_FILE:
                await self._write_own(document)
        for document in batch.ended:
            if document.error is not None and not document.failed:
                await self._fail(document, document.error)
            if not document.failed:
                await self._finish(document)

    async def _row(self, document: DocumentInProgress, chunk: Chunk, pending: PendingVector) -> TableRow:
        key = document.plan.key
        try:
            vector = await pending.vector
        except RefusedTextError as error:
            problem = f"has a chunk at {chunk.start}-{chunk.end} that the embedding API refuses: {error}"
            raise EmbeddingInputError(key, problem) from error
        document.count(chunk, pending.request)
        row = ChunkRow(
            document.id_of(chunk, pending.text_hash),
            key,
            chunk.ordinal,
            chunk.start,
            chunk.end,
            pending.text_hash,
            self._saga,
            chunk.page,
            chunk.last_page,
            chunk.heading,
            cast("Values", chunk.columns),  # the read stage checked them
        )
        return TableRow(row, document.plan.partition, chunk.text, vector, chunk.header, document.columns | row.columns)

    async def _finish(self, document: DocumentInProgress) -> None:
        if document.has_own_files:
            await self._write_own(document, finished=True)
            return
        self._shared.append(document)
        self._shared_rows += len(document.rows)
        if self._shared_rows >= _ROWS_PER_FILE:
            await self._write_shared()

    async def _write_own(self, document: DocumentInProgress, *, finished: bool = False) -> None:
        document.has_own_files = True
        await self._write([document], finished=finished)

    async def _write_shared(self) -> None:
        # In the order of the keys, so that an index over them grows at its end, which makes it small.
        documents = sorted(self._shared, key=lambda document: document.plan.key)
        self._shared, self._shared_rows = [], 0
        if documents:
            await self._write(documents, finished=True)

    async def _write(self, documents: Sequence[DocumentInProgress], *, finished: bool) -> None:
        """Begin a data file with the rows that some documents have so far."""
        await self._wait_for_files(_MAX_FILES_IN_PROGRESS - 1)
        rows = [row for document in documents for row in document.rows]
        for document in documents:
            document.rows = []
        before = self._writing[-1] if self._writing else None
        self._writing.append(self._tasks.create_task(self._write_file(documents, rows, before, finished=finished)))

    async def _wait_for_files(self, most: int = 0) -> None:
        """Wait until no more than ``most`` files are in progress."""
        while len(self._writing) > most:
            await self._writing.popleft()

    async def _write_file(
        self,
        documents: Sequence[DocumentInProgress],
        rows: Sequence[TableRow],
        before: asyncio.Task[None] | None,
        *,
        finished: bool,
    ) -> None:
        fragment: StagedFragment | None = None
        if rows:
            name = f"{self._saga}-{self.file_count}.lance"
            self.file_count += 1
            fragment = await asyncio.to_thread(self._stage, name, rows)
        if before is not None:
            await before  # a document is complete when its last file is recorded
        await asyncio.to_thread(self._record, fragment, rows, documents if finished else [])
        if fragment is not None:
            for document in documents:
                document.files.append(fragment)
        if finished:
            self._accept(documents)

    def _accept(self, documents: Sequence[DocumentInProgress]) -> None:
        """Take over documents that are complete and share the same files."""
        files = documents[0].files
        self.documents |= {document.plan.key: document.prepared(files) for document in documents}
        self.staged.extend(files)

    def _stage(self, name: str, rows: Sequence[TableRow]) -> StagedFragment:
        """Write rows into one data file."""
        schema = self._corpus.table.schema
        batches = (
            batch
            for start in range(0, len(rows), _ROWS_AT_ONCE)
            for batch in chunk_table(rows[start : start + _ROWS_AT_ONCE], schema).to_batches()
        )
        with stage("write", "write data file", attributes={"ingest_pipeline.rows": len(rows)}):
            return self._corpus.table.stage_batches(name, batches, schema)

    def _record(
        self, fragment: StagedFragment | None, rows: Sequence[TableRow], finished: Sequence[DocumentInProgress]
    ) -> None:
        """Record a data file, its chunk rows and the documents that it completes, in one transaction."""
        with (
            stage("write", "record data file", attributes=POSTGRES),
            boundary(Boundary.FRAGMENT_RECORDED),
            self._corpus.database.transaction() as connection,
        ):
            if fragment is not None:
                sagas.record_fragment(connection, self._saga, name=fragment.name, row_count=fragment.row_count)
            prepared_documents.add_chunks(connection, (row.chunk for row in rows))
            prepared_documents.finish_documents(connection, self._saga, [document.finish() for document in finished])
            for document in finished:
                if document.edit is not None:
                    share_chunks(connection, self._saga, document.plan.key, document.edit.ranges)

    async def _fail(self, document: DocumentInProgress, error: IngestError) -> None:
        """Skip a document. Its files, if it has any, stay unpublished until the next sweep deletes them."""
        await self._wait_for_files()
        document.failed = True
        document.rows = []
        self.failed[document.plan.key] = error
        await asyncio.to_thread(self._drop, document.plan.key)

    def _drop(self, key: str) -> None:
        with self._corpus.database.transaction() as connection:
            prepared_documents.drop_document(connection, self._saga, key)
