"""Rows of documents and chunks that a saga prepares. No reader sees them before they are published.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.columns.declaration import Values, canonical
from ingest_pipeline.columns.values import Value
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.erasures import check_not_erased
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import ChunkRow, Recipe, SourceObject, Usage


class PlannedDocument(Protocol):
    """What the catalog records of a document before the document is read."""

    @property
    def key(self) -> str: ...
    @property
    def partition(self) -> str: ...
    @property
    def source(self) -> SourceObject | None:
        """The object; None for a tombstone."""

    @property
    def replaces(self) -> UUID | None:
        """The saga whose row was current when the document was planned."""


def insert_documents(
    connection: Connection, *, generation: str, saga: UUID, recipe: Recipe, documents: Iterable[PlannedDocument]
) -> None:
    """Insert the rows of planned documents. No reader sees them before they are published.

    Raises:
        ConflictError: One of them was erased after it was planned. Nothing of it may be read or embedded.
    """
    types = ["text", "uuid", "text", "text", "text", "uuid", "bool", "text", "int8", "timestamptz"]
    types += ["int8", "int8", "float8", "int4", "int4", "int4", "int4", "int4"]
    # Nulls take no room, and a document that is read gets another version of its row.
    unknown, nothing = (None,) * 8, (0, 0, 0.0, 0, 0, 0, 0, 0)
    with connection.cursor() as cursor, cursor.copy(query("copy_documents")) as copy:
        copy.set_types(types)
        for document in documents:
            made_by = recipe.fingerprint_of(document.key)
            row = (generation, saga, made_by, document.key, document.partition, document.replaces)
            if source := document.source:
                copy.write_row((*row, False, source.document_etag, source.size, source.last_modified, *unknown))
            else:
                copy.write_row((generation, saga, None, *row[3:], True, None, None, None, *nothing))
    check_not_erased(connection, saga)


@dataclass(frozen=True, slots=True)
class FinishedDocument:
    """What is known of a document after it was read to its end."""

    key: str
    content_hash: str
    character_count: int
    chunk_count: int
    usage: Usage
    columns: Values = field(default_factory=dict[str, Value])
    blocks: bytes | None = None
    """The record of its blocks. None: it is small, or its text has pages."""


def finish_documents(connection: Connection, saga: UUID, documents: Sequence[FinishedDocument]) -> None:
    """Fill in the hashes, counts and usage of documents that were read to their end."""
    columns = {
        name: [getattr(row, name) for row in documents]
        for name in ("key", "blocks", "content_hash", "character_count", "chunk_count")
    }
    columns["columns"] = [canonical(row.columns) for row in documents]
    columns |= {name: [getattr(row.usage, name) for row in documents] for name in Usage.__slots__}
    connection.execute(query("finish_documents"), {"saga": saga, **columns})


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """New values of the columns of a document whose bytes and chunks are those at head."""

    key: str
    replaces: UUID
    """The saga of the row at head."""
    source: SourceObject
    recipe: str
    """Fingerprint of the recipe, which may differ from that of the row at head by enrichers."""
    columns: Values


@dataclass(frozen=True, slots=True)
class CopiedDocument:
    """The counts of a document whose rows stay as they are."""

    key: str
    character_count: int
    chunk_count: int


def insert_column_changes(
    connection: Connection, saga: UUID, changes: Sequence[ColumnChange]
) -> dict[str, CopiedDocument]:
    """Insert the rows of documents whose columns alone change. No reader sees them before publication."""
    values = {
        "saga": saga,
        "keys": [change.key for change in changes],
        "replaces": [change.replaces for change in changes],
        "etags": [change.source.document_etag for change in changes],
        "sizes": [change.source.size for change in changes],
        "last_modified": [change.source.last_modified for change in changes],
        "recipes": [change.recipe for change in changes],
        "columns": [canonical(change.columns) for change in changes],
    }
    with connection.cursor(row_factory=class_row(CopiedDocument)) as cursor:
        return {row.key: row for row in cursor.execute(query("insert_column_changes"), values)}


def columns_of_saga(connection: Connection, saga: UUID) -> dict[str, Values]:
    """Return the values of the columns of a saga's documents, by key."""
    return {row["key"]: row["columns"] for row in connection.execute(query("columns_of_saga"), {"saga": saga})}


def add_chunks(connection: Connection, chunks: Iterable[ChunkRow]) -> None:
    """Insert chunk rows. No reader sees them before the row of their document is published."""
    with connection.cursor() as cursor, cursor.copy(query("copy_chunks")) as copy:
        copy.set_types(["uuid", "text", "int4", "uuid", "int8", "int8", "uuid", "int4", "int4", "text", "jsonb"])
        for chunk in chunks:
            copy.write_row(
                (
                    chunk.saga,
                    chunk.document,
                    chunk.ordinal,
                    chunk.id,
                    chunk.start_offset,
                    chunk.end_offset,
                    chunk.text_hash,
                    chunk.page,
                    chunk.last_page,
                    chunk.heading,
                    chunk.columns or None,
                )
            )


def drop_document(connection: Connection, saga: UUID, key: str) -> None:
    """Delete the rows and chunks of a failed document from its saga."""
    connection.execute(query("drop_document"), {"saga": saga, "key": key})


def forget_documents(connection: Connection, saga: UUID) -> None:
    """Delete the rows that a saga planned and did not publish."""
    connection.execute(query("forget_documents"), {"saga": saga})
