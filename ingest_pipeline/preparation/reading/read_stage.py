"""The first stage of a preparation: reads documents and cuts them into batches of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ingest_pipeline.errors import DocumentChangedError, DocumentError, TooRecentError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.preparation.batches import ChunkBatch, DocumentInProgress
from ingest_pipeline.preparation.reading.document_columns import checked_chunk, document_columns
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.edits import EditReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.telemetry.metrics import STAGE_DURATION
from ingest_pipeline.telemetry.spans import span
from ingest_pipeline.types import Chunk

_MAX_READERS = 4
# As many as a request carries by default.
_BATCH_CHUNKS = 128


class ReadStage:
    """Reads several documents at once. A thread makes each batch.

    Args:
        context: The ingest context of the corpus.
        plans: The plans of the saga. Removals are skipped.
        target: Receives the batches, and None at the end.
        calls: Calls the user's parsers, chunker and enrichers.
        edits: Reads documents that are edits of what is at head.
        previews: Whether previews of the documents are collected.
    """

    def __init__(
        self,
        context: IngestContext,
        plans: Sequence[DocumentPlan],
        target: asyncio.Queue[ChunkBatch | None],
        calls: ExtensionCalls,
        edits: EditReader,
        *,
        previews: bool = True,
    ) -> None:
        self._context = context
        self._plans = plans
        self._target = target
        self._calls = calls
        self._edits = edits
        self._previews = previews

    async def run(self) -> None:
        """Read every document.

        Raises:
            UnavailableError: The source does not answer.
        """
        plans = iter([plan for plan in self._plans if plan.source is not None])
        with span("read"):
            async with asyncio.TaskGroup() as readers:
                for _ in range(_MAX_READERS):
                    readers.create_task(self._read(plans))
        await self._target.put(None)

    async def _read(self, plans: Iterator[DocumentPlan]) -> None:
        batches = self._batches(plans)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            await self._target.put(batch)

    def _batches(self, plans: Iterator[DocumentPlan]) -> Iterator[ChunkBatch]:
        batch = ChunkBatch()
        for plan in plans:
            document = DocumentInProgress(plan, self._reader(plan), preview=ChunkPreview(is_off=not self._previews))
            for chunk in self._chunks(document):
                batch.add(document, chunk)
                if len(batch.chunks) >= _BATCH_CHUNKS:
                    yield batch
                    batch = ChunkBatch()
            batch.ended.append(document)
            reading, work = document.reader.reading.seconds, document.reader.work.seconds
            STAGE_DURATION.record(reading, stage="read")
            STAGE_DURATION.record(max(0.0, work - reading), stage="chunk")
        if batch.ended:
            yield batch

    def _chunks(self, document: DocumentInProgress) -> Iterator[Chunk]:
        """The chunks of one document. An error ends them and is kept in the document."""
        context = self._context
        try:
            document.edit = self._edits.read(document.plan, document.reader)
            if document.edit is None:
                if document.reader.is_used:
                    document.reader = self._reader(document.plan)
                chunks = document.reader.chunks(context.source, context.chunker, context.limits)
            else:
                chunks = iter(document.edit.added)
            first = next(chunks, None)
            document.columns = document_columns(context, document.reader)
            if first is not None:
                yield checked_chunk(context, document.plan.key, first)
            for chunk in chunks:
                yield checked_chunk(context, document.plan.key, chunk)
        except (DocumentError, DocumentChangedError) as error:
            document.error = error
        else:
            document.error = self._exclusion_reason(document.reader)

    def _reader(self, plan: DocumentPlan) -> DocumentReader:
        assert plan.source is not None  # noqa: S101  `run` chose these
        return DocumentReader(plan.source, self._context.recipe, self._calls)

    def _exclusion_reason(self, reader: DocumentReader) -> TooRecentError | None:
        """Why a document that was read to its end is not published yet. None: it is published.

        Programs often empty a file before they write it again. So the published rows of an emptied file stay until the
        file has been empty for a while.
        """
        source, seconds = reader.source, self._context.min_age_seconds
        if reader.chunk_count or not source.is_too_recent(seconds, datetime.now(UTC)):
            return None
        return TooRecentError(f"Document {source.key!r} is empty and was modified less than {seconds} seconds ago")
