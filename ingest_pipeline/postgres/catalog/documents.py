"""The catalog's documents and chunks.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.columns.values import Value
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import ChunkRow, Recipe, SourceObject


@dataclass(frozen=True, slots=True)
class LatestDocument:
    """The latest published row of a document: the document at head, or its tombstone."""

    key: str
    partition: str
    saga: UUID
    removed: bool
    etag: str | None
    size: int | None
    content_hash: str | None
    recipe: str | None
    chunk_count: int
    fragments: list[int]
    columns: Values = field(default_factory=dict[str, Value])
    """Recorded values of the user's columns."""


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as readers at a version see it."""

    key: str
    partition: str
    saga: UUID
    etag: str
    size: int
    last_modified: datetime
    recipe: str
    character_count: int
    chunk_count: int
    embedded: int
    cached: int
    fragments: list[int]
    published_version: int
    columns: Values = field(default_factory=dict[str, Value])
    """Recorded values of the user's columns."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The state of a partition at head."""

    partition: str
    documents: int
    chunks: int
    characters: int
    bytes: int
    published_version: int
    """The last version that changed the partition."""
    etag: str
    """ETag of the only document, or of one of several documents."""
    recipe: str
    digest: str
    """SHA-256 of the keys, ETags and recipes of the documents."""

    @property
    def data_version(self) -> str:
        """The value that Dagster compares: equal for equal documents."""
        return f"{self.etag}/{self.recipe}" if self.documents == 1 else self.digest


@dataclass(frozen=True, slots=True)
class Superseded:
    """The rows of a document that a publication removed from head."""

    key: str
    fragments: list[int]
    chunk_count: int


def latest_documents(
    connection: Connection,
    generation: str,
    *,
    partitions: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> list[LatestDocument]:
    """Return the latest rows of the documents of some partitions or keys, including tombstones, by key.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        partitions: Partitions to read. None: all.
        keys: Keys to read. None: all.
    """
    values = {
        "generation": generation,
        "after": "",
        "partitions": None if partitions is None else list(partitions),
        "keys": None if keys is None else list(keys),
    }
    with connection.cursor(row_factory=class_row(LatestDocument)) as cursor:
        return cursor.execute(query("latest_documents"), values).fetchall()


@contextmanager
def streamed_latest(connection: Connection, generation: str, *, after: str = "") -> Generator[Iterator[LatestDocument]]:
    """Stream the latest rows of all documents after a key, in batches from a server-side cursor.

    This must be the first query of its transaction: the transaction reads all later rows in the same snapshot.
    """
    connection.execute(query("one_snapshot"))
    with connection.cursor(name="latest_documents", row_factory=class_row(LatestDocument)) as cursor:
        cursor.itersize = 2000
        cursor.execute(
            query("latest_documents"), {"generation": generation, "after": after, "partitions": None, "keys": None}
        )
        yield iter(cursor)


def count_documents(connection: Connection, generation: str) -> int:
    """Return the number of documents at head."""
    row = connection.execute(query("count_documents"), {"generation": generation}).fetchone()
    return row["found"] if row else 0


def count_published_by(connection: Connection, writer: str, sagas: Sequence[UUID]) -> int:
    """Return the number of documents that a process published, except by some of its sagas."""
    row = connection.execute(query("count_published_by"), {"writer": writer, "sagas": list(sagas)}).fetchone()
    return row["found"] if row else 0


def count_removed(connection: Connection, generation: str, within: timedelta) -> int:
    """Return the number of documents that publications of the last time removed, because the source lacked them."""
    row = connection.execute(query("count_removed"), {"generation": generation, "within": within}).fetchone()
    return row["found"] if row else 0


def count_recipe(connection: Connection, generation: str, recipe: Recipe) -> tuple[int, int]:
    """Return how many documents at head were made with a recipe, and how many with other recipes."""
    values = {"generation": generation, "recipes": sorted(recipe.fingerprints)}
    row = connection.execute(query("count_recipe"), values).fetchone()
    return (row["made"], row["of_other_recipes"]) if row else (0, 0)


def first_partition(connection: Connection, generation: str) -> str | None:
    """Return the partition of the first document at head, None if there is no document."""
    row = connection.execute(query("first_partition"), {"generation": generation}).fetchone()
    return row["partition"] if row else None


def all_partitions(connection: Connection, generation: str) -> list[str]:
    """Return the partitions that have documents at head, in no order."""
    return [row["partition"] for row in connection.execute(query("all_partitions"), {"generation": generation})]


def partition_states(connection: Connection, generation: str, partitions: Sequence[str]) -> dict[str, PartitionState]:
    """Return the state of each partition at head. Empty partitions are omitted."""
    values = {"generation": generation, "partitions": list(partitions)}
    with connection.cursor(row_factory=class_row(PartitionState)) as cursor:
        return {state.partition: state for state in cursor.execute(query("partition_states"), values)}


def documents_without_list(connection: Connection, generation: str, access: str, limit: int) -> tuple[int, list[str]]:
    """Return the number of documents at head without principals, and the keys of the first of them."""
    values = {"generation": generation, "access": access, "limit": limit}
    rows = connection.execute(query("documents_without_list"), values).fetchall()
    return (rows[0]["found"] if rows else 0), [row["key"] for row in rows]


def conflicting_documents(connection: Connection, saga: UUID) -> list[str]:
    """Return the keys of the saga's documents that another saga published after they were planned."""
    return [row["key"] for row in connection.execute(query("conflicting_documents"), {"saga": saga})]


def supersede_documents(connection: Connection, saga: UUID, version: int) -> list[Superseded]:
    """End the rows at head that the saga's documents replace at ``version``, and return them."""
    with connection.cursor(row_factory=class_row(Superseded)) as cursor:
        return cursor.execute(query("supersede_documents"), {"saga": saga, "version": version}).fetchall()


def publish_documents(connection: Connection, saga: UUID, version: int, fragments: Mapping[str, Sequence[int]]) -> None:
    """Publish the saga's documents at ``version``, after `supersede_documents`.

    Args:
        connection: Connection of the caller's transaction.
        saga: The saga.
        version: The version of the table.
        fragments: The Lance fragments that contain the documents' rows, by key. Documents without rows may be missing.
    """
    together: dict[tuple[int, ...], list[str]] = {}
    for key, numbers in fragments.items():
        together.setdefault(tuple(numbers), []).append(key)
    with connection.cursor() as cursor:
        cursor.executemany(
            query("publish_placed"),
            [
                {"saga": saga, "version": version, "keys": keys, "fragments": list(numbers)}
                for numbers, keys in together.items()
            ],
        )
    connection.execute(query("publish_documents"), {"saga": saga, "version": version})


def move_rows(connection: Connection, generation: str, *, keys: Collection[str], moved: Mapping[int, int]) -> None:
    """Record, for the documents at head, that fragments were replaced.

    Args:
        connection: In the transaction of the publication.
        generation: The generation.
        keys: The documents with rows in the replaced fragments, see `documents_in`. Others are not looked at, because a
            search of all documents would take long under the lock.
        moved: The fragment that replaced each fragment.
    """
    values = {"generation": generation, "keys": list(keys), "old": list(moved), "new": list(moved.values())}
    connection.execute(query("move_rows"), values)


def forget_superseded(connection: Connection, generation: str, oldest: int, limit: int) -> int:
    """Delete at most ``limit`` documents that only readers before a version see, and their chunks; return how many."""
    return connection.execute(
        query("forget_superseded"), {"generation": generation, "oldest": oldest, "limit": limit}
    ).rowcount


def forget_tombstones(connection: Connection, generation: str, oldest: int, limit: int) -> int:
    """Delete at most ``limit`` tombstones of documents that no reader from a version on sees; return how many."""
    return connection.execute(
        query("forget_tombstones"), {"generation": generation, "oldest": oldest, "limit": limit}
    ).rowcount


def refresh_etag(connection: Connection, generation: str, document: LatestDocument, source: SourceObject) -> None:
    """Record a new ETag of an object whose bytes are unchanged, so that nothing needs to be published."""
    connection.execute(
        query("refresh_etag"),
        {
            "generation": generation,
            "key": document.key,
            "saga": document.saga,
            "etag": source.document_etag,
            "last_modified": source.last_modified,
        },
    )


def has_chunks(connection: Connection, generation: str) -> bool:
    """Whether any chunk was ever published."""
    row = connection.execute(query("has_chunks"), {"generation": generation}).fetchone()
    return row is not None and row["found"]


def documents_at(
    connection: Connection, generation: str, version: int, keys: Sequence[str] | None = None
) -> list[DocumentRow]:
    """Return the documents that readers at a version see, by key."""
    values = {"generation": generation, "version": version, "keys": None if keys is None else list(keys)}
    with connection.cursor(row_factory=class_row(DocumentRow)) as cursor:
        return cursor.execute(query("documents_at"), values).fetchall()


def documents_after(
    connection: Connection,
    generation: str,
    version: int,
    *,
    prefix: str,
    after: str,
    limit: int,
    access: str | None,
    principals: Sequence[str],
) -> list[DocumentRow]:
    """Return the first documents after a key that readers at a version see, by key.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        version: Version of a publication.
        prefix: What their keys begin with.
        after: The key before the first of them.
        limit: Maximum number of documents.
        access: The column with the principals of a document. None: return all documents.
        principals: Return only documents that have one of these in the column.
    """
    values = {"generation": generation, "version": version, "prefix": prefix, "after": after, "limit": limit}
    with connection.cursor(row_factory=class_row(DocumentRow)) as cursor:
        restricted = {"access": access, "principals": list(principals)}
        return cursor.execute(query("documents_after"), {**values, **restricted}).fetchall()


def documents_in(
    connection: Connection, generation: str, version: int, fragments: Collection[int]
) -> dict[str, list[int]]:
    """Return the documents at a version that have rows in some fragments, with the fragments of each key."""
    values = {"generation": generation, "version": version, "fragments": list(fragments)}
    return {row["key"]: row["fragments"] for row in connection.execute(query("documents_in_fragments"), values)}


def chunks_at(
    connection: Connection, generation: str, version: int, keys: Sequence[str] | None = None
) -> list[ChunkRow]:
    """Return the chunks that readers at a version see, by document and ordinal."""
    values = {"generation": generation, "version": version, "keys": None if keys is None else list(keys)}
    with connection.cursor(row_factory=class_row(ChunkRow)) as cursor:
        return cursor.execute(query("chunks_at"), values).fetchall()
