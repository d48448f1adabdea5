"""The first stage of a preparation: reads documents and cuts them into batches of chunks.

If there is much text and more than one processor, a chunking process cuts it. This process cuts the text that comes
before that one has started, long documents, and all that the chunking process could not cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate

from ingest_pipeline.chunking.cut_texts import WholeText
from ingest_pipeline.chunking.worker_pool import TextCutter
from ingest_pipeline.errors import DocumentChangedError, DocumentError, TooRecentError
from ingest_pipeline.parsing.built_in_parsers import is_markdown, is_parsed
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.preparation.batches import ChunkBatch, DocumentInProgress
from ingest_pipeline.preparation.reading.document_columns import checked_chunk, document_columns
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.edits import EditReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.processes import usable_processors
from ingest_pipeline.telemetry.metrics import STAGE_DURATION
from ingest_pipeline.telemetry.spans import span
from ingest_pipeline.types import Chunk

_MAX_READERS = 4
# As many as a request carries by default.
_BATCH_CHUNKS = 128

# Cutting so much text takes longer than starting a chunking process.
_LEAST_BYTES = 2 << 20
# A longer document is cut as a stream, so that it is never in memory as a whole.
_MAX_DOCUMENT_BYTES = 1 << 20
# What one request to the chunking process has, about: the chunks of a batch.
_REQUEST_BYTES, _REQUEST_DOCUMENTS = 128 << 10, 64


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
        self._cutter = TextCutter(context.chunker, context.recipe.encoding)

    def start_chunking(self) -> None:
        """Start a chunking process, if one is worth its start. It becomes ready while this process does other work."""
        if usable_processors() > 1 and self._has_much_text():
            self._cutter.start()

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
        for document in self._documents(plans):
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

    def _documents(self, plans: Iterator[DocumentPlan]) -> Iterator[DocumentInProgress]:
        """The documents of the plans. Those for the chunking process are read and sent in groups."""
        group: list[DocumentInProgress] = []
        size = 0
        for plan in plans:
            document = DocumentInProgress(plan, self._reader(plan), preview=ChunkPreview(is_off=not self._previews))
            if not (self._cutter.is_ready and self._is_sent(plan, document.reader)):
                yield document
                continue
            group.append(document)
            size += document.reader.source.size
            if size >= _REQUEST_BYTES or len(group) >= _REQUEST_DOCUMENTS:
                yield from self._cut(group)
                group, size = [], 0
        yield from self._cut(group)

    def _is_sent(self, plan: DocumentPlan, reader: DocumentReader) -> bool:
        """Whether the chunking process gets a document."""
        key, columns = plan.key, self._context.columns.of_documents
        return (
            reader.source.size <= _MAX_DOCUMENT_BYTES
            and not (is_parsed(key) or reader.is_whole or self._edits.may_read(plan, reader))
            and not (columns and is_markdown(key))  # its front matter is read here
        )

    def _has_much_text(self) -> bool:
        """Whether a chunking process would get so much text that it is worth its start."""
        sent = (plan.source.size for plan in self._plans if plan.source and self._is_sent(plan, self._reader(plan)))
        return any(size >= _LEAST_BYTES for size in accumulate(sent))

    def _cut(self, documents: Sequence[DocumentInProgress]) -> Sequence[DocumentInProgress]:
        """Let the chunking process cut some documents. `_chunks` cuts those that it does not cut."""
        read: list[tuple[DocumentInProgress, WholeText]] = []
        for document in documents:
            try:
                read.append((document, document.reader.read_whole(self._context.source)))
            except (DocumentError, DocumentChangedError) as error:
                document.error = error
        if read:
            found = self._cutter.cut([text for _, text in read])
            for (document, _), text in zip(read, found, strict=True):
                if text is not None:
                    document.reader.take(text)
        return documents

    def _chunks(self, document: DocumentInProgress) -> Iterator[Chunk]:
        """The chunks of one document. An error ends them and is kept in the document."""
        if document.error is not None:  # it could not be read
            return
        context = self._context
        try:
            if self._edits.may_read(document.plan, document.reader):
                document.edit = self._edits.read(document.plan, document.reader)
                if document.edit is None:
                    document.reader = self._reader(document.plan)  # that one may be used up
            if document.edit is None:
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
