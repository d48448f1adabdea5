"""Documents of which only the columns change: one publication that embeds nothing and moves no row.

Their text is read only if code of the user computes columns from it, see `reread`. The catalog's rows are copied. In
the table, the values of the changed documents, and their saga, are written into one small file for each fragment that
has rows of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.errors import ConflictError, DocumentError, IngestError, StaleError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.ingestion.touched_objects import TouchedObjects
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.column_files import ColumnChange, ColumnFile, NewValues, stage_columns
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents, history, holds, prepared_documents
from ingest_pipeline.postgres.catalog.prepared_documents import CopiedDocument
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import failures, sagas
from ingest_pipeline.preparation.reading.document_columns import read_columns
from ingest_pipeline.saga.documents import supersede_documents
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.types import ChunkRow, chunks_fingerprint, object_etag


@dataclass(frozen=True, slots=True)
class ColumnUpdate:
    """A document of which only the columns change."""

    plan: DocumentPlan
    columns: Values | None
    """The new values. None: they are not known before the text is read again."""
    chunks: Sequence[ChunkRow] | None = None
    """Its chunks with new values. None: they keep theirs."""

    @property
    def size_to_read(self) -> int:
        """Bytes to read before the values are known."""
        return self.plan.source.size if self.columns is None and self.plan.source is not None else 0


def is_columns_only(context: IngestContext, plan: DocumentPlan) -> bool:
    """Whether ETags and recipes say that nothing but the columns of a document can have changed. Reads nothing."""
    source, latest = plan.source, plan.latest
    if source is None or latest is None or latest.removed or object_etag(latest.etag or "") != source.etag:
        return False
    recipe = context.recipe.fingerprint_of(plan.key)
    return has_same_chunks(latest.recipe, recipe) and (latest.etag, latest.recipe) != (source.document_etag, recipe)


def has_same_chunks(recipe: str | None, other: str) -> bool:
    """Whether two recipes cut and embed equal bytes alike, and differ by nothing but enrichers."""
    return recipe is not None and chunks_fingerprint(recipe) == chunks_fingerprint(other)


def _has_to_be_read(context: IngestContext, plan: DocumentPlan) -> bool:
    """Whether columns may change that code of the user computes, or computed, from the text."""
    own, recipe = context.extensions, context.recipe.fingerprint_of(plan.key)
    is_other = plan.latest is not None and plan.latest.recipe != recipe
    return is_other or bool(own.enrichers) or own.parser_of(plan.key) is not None


def column_update(context: IngestContext, plan: DocumentPlan) -> ColumnUpdate | IngestError | DocumentPlan | None:
    """Compare the columns of a document whose bytes and chunks are those at head.

    Returns:
        The update; an error of the document; the plan itself if the document has to be ingested again; or None if the
        columns are the same, which is then recorded.
    """
    assert plan.source is not None  # noqa: S101  the caller compared its bytes
    assert plan.latest is not None  # noqa: S101
    if _has_to_be_read(context, plan):
        return ColumnUpdate(plan, None)
    try:
        values = read_columns(context, plan.source)
    except StaleError:
        return plan
    except DocumentError as error:
        return error
    if values != context.columns.of_documents.conform(plan.latest.columns):
        return ColumnUpdate(plan, values)
    TouchedObjects(context).record(plan)
    return None


@dataclass(slots=True)
class PreparedColumns:
    """What a saga can publish."""

    documents: dict[str, CopiedDocument] = field(default_factory=dict[str, CopiedDocument])
    files: list[ColumnFile] = field(default_factory=list[ColumnFile])
    damaged: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents whose rows are not where the catalog says. They have to be ingested again."""


def prepare_columns(context: IngestContext, saga: Saga, updates: Sequence[ColumnUpdate]) -> PreparedColumns:
    """Stage the new values of some documents.

    Raises:
        FencedError: Another process has ended the saga.
        UnavailableError: One of the stores failed.
    """
    corpus, prepared = context.corpus, PreparedColumns()
    own, chunks = table_columns(corpus.table.schema), _values_of_chunks(updates)
    columns = own.columns if chunks else own.of_documents.columns
    fragments: defaultdict[int, dict[str, Values]] = defaultdict(dict)
    expected: dict[str, int] = {}
    for update in updates:
        assert update.plan.latest is not None  # noqa: S101  of `column_update`
        expected[update.plan.key] = update.plan.latest.chunk_count
        for number in update.plan.latest.fragments:
            fragments[number][update.plan.key] = update.columns or {}
    found: defaultdict[str, int] = defaultdict(int)
    present = {state.number for state in corpus.table.fragments(saga.base_version)}
    numbers = count()
    for number in sorted(present & fragments.keys()):
        saga.check_not_fenced()
        name = f"{saga.id}-{next(numbers)}.lance"
        new = NewValues(columns, fragments[number], saga.id, chunks)
        file, counts = stage_columns(corpus.table, saga.base_version, number, name, new)
        with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
            sagas.record_fragment(connection, saga.id, name=name, row_count=file.row_count)
        prepared.files.append(file)
        for key, rows in counts.items():
            found[key] += rows
    prepared.damaged = [update.plan for update in updates if found[update.plan.key] != expected[update.plan.key]]
    if updates and not prepared.damaged:
        prepared.documents = _insert(context, saga, updates)
    return prepared


def _values_of_chunks(updates: Sequence[ColumnUpdate]) -> dict[str, Values]:
    return {str(row.id): row.columns for update in updates for row in update.chunks or ()}


def _insert(context: IngestContext, saga: Saga, updates: Sequence[ColumnUpdate]) -> dict[str, CopiedDocument]:
    changes = [
        prepared_documents.ColumnChange(
            update.plan.key,
            update.plan.latest.saga,
            update.plan.source,
            context.recipe.fingerprint_of(update.plan.key),
            update.columns or {},
        )
        for update in updates
        if update.plan.latest is not None and update.plan.source is not None
    ]
    with boundary(Boundary.FRAGMENT_RECORDED), context.corpus.database.transaction() as connection:
        copied = prepared_documents.insert_column_changes(connection, saga.id, changes)
        history.copy_chunk_rows(connection, saga.id, [update.plan.key for update in updates if update.chunks is None])
        rows = (replace(row, saga=saga.id) for update in updates for row in update.chunks or ())
        prepared_documents.add_chunks(connection, rows)
    return copied


@dataclass(frozen=True, slots=True)
class ChangedColumns:
    """Both sides of the publication."""

    context: IngestContext
    saga: UUID
    prepared: PreparedColumns

    def write(self, connection: Connection, base: int, version: int) -> ColumnChange:
        superseded = supersede_documents(connection, self.saga, version)
        corpus, change = self.context.corpus, ColumnChange(self.prepared.files)
        fragments = {document.key: document.fragments for document in superseded}
        staged = {file.fragment for file in change.files}
        moved = {number for document in superseded if document.chunk_count for number in document.fragments} - staged
        if moved or not corpus.table.fits(base, change):
            raise ConflictError(
                f"Rows of the table of corpus {corpus.name!r} moved while new values of columns were prepared"
            )
        documents.publish_documents(connection, self.saga, version, fragments)
        failures.clear_failures(connection, corpus.generation, list(fragments))
        holds.release_superseded(connection, self.saga)
        sagas.forget_fragments(connection, self.saga)
        return change

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """No row has moved."""
