"""Adding, dropping and changing the user's columns of a table, as one publication of maintenance. Nothing is embedded.

The version that lacks a column's old type has its new one, so readers at head always have the column. A column that is
added or changes its type gets the values that the catalog still has of it, if they fit the type, so that both stores
agree at every version. The next ingest finds the documents that have other values now, and publishes those values
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from uuid import UUID

from ingest_pipeline.columns.declaration import Column, Columns, Values
from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.corpus.saga_timeouts import ATTEMPTS
from ingest_pipeline.errors import ConflictError, StaleError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.column_files import ColumnFile, NewValues, SchemaChange, stage_columns
from ingest_pipeline.postgres.catalog import documents, history
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.reconcile import reconcile
from ingest_pipeline.telemetry.logs import get_logger

log = get_logger(__name__)


def update_columns(corpus: Corpus, declared: Columns) -> Corpus:
    """Give the table of a corpus the declared columns.

    Returns:
        The corpus, opened with these columns.

    Raises:
        ConflictError: Other processes published at every attempt.
        UnavailableError, ForeignWriteError: As any publication.
    """
    if table_columns(corpus.table.schema).columns == declared.columns:
        return corpus  # a version above head, of a dead writer, is undone by the next publication, which checks again
    for _ in range(ATTEMPTS):
        head = corpus.head()
        schema = corpus.table.at(head.head_version).schema
        there = table_columns(schema)
        dropped = [column for column in there.columns if column not in declared.columns]
        added = [column for column in declared.columns if column not in there.columns]
        if not dropped and not added:
            if corpus.table.schema.equals(schema):
                return corpus
            return replace(corpus, table=open_table(corpus.database, corpus.generation, corpus.table.uri))
        try:
            _publish(corpus, head.head_version, dropped, added)
        except StaleError as error:
            log.info("corpus %s: changing the columns again: %s", corpus.generation, error)
            reconcile(corpus)
    raise ConflictError(f"Other processes published into corpus {corpus.name!r} at every attempt to change its columns")


def _publish(corpus: Corpus, head: int, dropped: Sequence[Column], added: Sequence[Column]) -> None:
    with Saga.begin(corpus, SagaKind.MAINTENANCE, base_version=head) as saga:
        names = [column.name for column in dropped]
        change = SchemaChange(names, added, _files(corpus, head, saga.id, added, always=_is_any_retyped(names, added)))
        saga.prepared()
        version = saga.publish(_ChangedSchema(corpus, saga.id, head, change))
    log.info(
        "corpus %s: version %d drops the columns %s and adds the columns %s",
        corpus.generation,
        version,
        ", ".join(names) or "(none)",
        ", ".join(column.name for column in added) or "(none)",
    )


def _is_any_retyped(dropped: Sequence[str], added: Sequence[Column]) -> bool:
    return any(column.name in dropped for column in added)


def _files(corpus: Corpus, head: int, saga: UUID, added: Sequence[Column], *, always: bool) -> list[ColumnFile]:
    """Stage the values that the catalog has of the new columns.

    Args:
        corpus: The corpus.
        head: The version of the documents.
        saga: The saga that writes the files.
        added: The new columns.
        always: Whether to write files without values too. Lance demands them of a column that changes its type.
    """
    of_documents, of_chunks = Columns(tuple(added)).of_documents, Columns(tuple(added)).of_chunks
    with corpus.database.transaction() as connection:
        found = documents.documents_at(connection, corpus.generation, head)
        is_any_of_chunks = bool(of_chunks) and history.has_chunk_columns(
            connection, corpus.generation, head, of_chunks.names
        )
    values: dict[str, Values] = {row.key: fitting for row in found if (fitting := of_documents.conform(row.columns))}
    if not added or not (values or is_any_of_chunks or always):
        return []
    numbers, files = count(), list[ColumnFile]()
    for fragment in corpus.table.fragments(head):
        name = f"{saga}-{next(numbers)}.lance"
        chunks: dict[str, Values] = {}
        if is_any_of_chunks:
            with corpus.database.transaction() as connection:
                recorded = history.chunk_columns_in(connection, corpus.generation, head, [fragment.number])
            chunks = {number: of_chunks.conform(one) for number, one in recorded.items()}
        file, _ = stage_columns(corpus.table, head, fragment.number, name, NewValues(added, values, chunks=chunks))
        with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
            sagas.record_fragment(connection, saga, name=name, row_count=file.row_count)
        files.append(file)
    return files


@dataclass(frozen=True, slots=True)
class _ChangedSchema:
    """Both sides of the publication. The catalog's rows stay as they are."""

    corpus: Corpus
    saga: UUID
    head: int
    change: SchemaChange

    def write(self, connection: Connection, base: int, version: int) -> SchemaChange:  # noqa: ARG002  of the protocol
        if base != self.head:
            raise ConflictError(f"Corpus {self.corpus.name!r} moved from version {self.head} to {base} meanwhile")
        sagas.forget_fragments(connection, self.saga)
        return self.change

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """No row has moved."""
