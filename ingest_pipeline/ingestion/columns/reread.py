"""Documents whose columns code of the user computes again, while their chunks stay as they are at head.

An enricher with another fingerprint, or another sidecar beside a parser of the user, changes columns alone. So the
document is read and cut again, and its chunks are compared with those at head. They keep their rows and vectors.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast
from uuid import UUID

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.errors import DocumentChangedError, DocumentError, IngestError
from ingest_pipeline.ingestion.columns.column_changes import ColumnUpdate
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.preparation.prepare import root_cause
from ingest_pipeline.preparation.reading.document_columns import checked_chunk, document_columns
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.extension_calls import ExtensionCalls
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.types import Chunk, ChunkRow, chunk_id

_MAX_READERS = 4


@dataclass(slots=True)
class Reread:
    """The documents of a saga, sorted by what reading them again found."""

    updates: list[ColumnUpdate] = field(default_factory=list[ColumnUpdate])
    """Documents with the values of their columns."""
    failed: dict[str, IngestError] = field(default_factory=dict[str, IngestError])
    """Documents that could not be read or enriched, by key."""
    recut: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents with other chunks than at head. They have to be ingested again."""


async def reread(context: IngestContext, saga: Saga, updates: Sequence[ColumnUpdate], guard: SpendingGuard) -> Reread:
    """Read the documents whose columns are not known yet.

    Args:
        context: The ingest context of the corpus.
        saga: The saga, which counts what enrichers are billed.
        updates: The documents.
        guard: The limits on tokens.

    Raises:
        FencedError: Another process has ended the saga.
        SpendingLimitError, ConfigurationError, UnavailableError: The whole saga failed.
    """
    found = Reread([update for update in updates if update.columns is not None])
    unknown = iter([update.plan for update in updates if update.columns is None])
    guard.add(saga.id)
    reader = _Reader(context, saga, ExtensionCalls(context.extensions, context.corpus, saga.id, guard))
    try:
        async with asyncio.TaskGroup() as readers:
            for _ in range(_MAX_READERS):
                readers.create_task(_read(reader, unknown, found))
    except ExceptionGroup as group:
        raise root_cause(group) from group
    return found


async def _read(reader: _Reader, unknown: Iterator[DocumentPlan], found: Reread) -> None:
    for plan in unknown:
        try:
            update = await asyncio.to_thread(reader.update, plan)
        except (DocumentError, DocumentChangedError) as error:
            found.failed[plan.key] = error
            continue
        if update is None:
            found.recut.append(plan)
        else:
            found.updates.append(update)


@dataclass(frozen=True, slots=True)
class _Reader:
    context: IngestContext
    saga: Saga
    calls: ExtensionCalls

    def update(self, plan: DocumentPlan) -> ColumnUpdate | None:
        """The columns of a document and of its chunks. None: its chunks are not those at head."""
        assert plan.source is not None  # noqa: S101  the caller compared its bytes
        self.saga.check_not_fenced()
        context, reader = self.context, DocumentReader(plan.source, self.context.recipe, self.calls)
        occurrences: Counter[UUID] = Counter()
        rows: list[ChunkRow] = []
        for chunk in reader.chunks(context.source, context.chunker, context.limits):
            rows.append(self._row(plan.key, checked_chunk(context, plan.key, chunk), occurrences[chunk.text_hash]))
            occurrences[chunk.text_hash] += 1
        columns = document_columns(context, reader)
        with context.corpus.database.transaction() as connection:
            at_head = documents.chunks_at(connection, context.corpus.generation, self.saga.base_version, [plan.key])
        return ColumnUpdate(plan, columns, rows) if _are_the_same(at_head, rows) else None

    def _row(self, key: str, chunk: Chunk, occurrence: int) -> ChunkRow:
        return ChunkRow(
            chunk_id(key, chunk.text_hash, occurrence),
            key,
            chunk.ordinal,
            chunk.start,
            chunk.end,
            chunk.text_hash,
            self.saga.id,
            chunk.page,
            chunk.last_page,
            chunk.heading,
            cast("Values", chunk.columns),
        )


def _are_the_same(at_head: Sequence[ChunkRow], rows: Sequence[ChunkRow]) -> bool:
    """Whether chunks differ by nothing but their saga and their columns."""
    return len(at_head) == len(rows) and all(
        replace(old, saga=new.saga, columns=new.columns) == new for old, new in zip(at_head, rows, strict=True)
    )
