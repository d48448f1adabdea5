"""Earlier versions in the catalog: past publications, their differences from head, and copies of their rows.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind
from ingest_pipeline.postgres.rows import row_of
from ingest_pipeline.postgres.sql import query


@dataclass(frozen=True, slots=True)
class PublicationRow:
    """One publication with its counts and cost."""

    version: int
    published_at: datetime
    kind: SagaKind
    target_version: int | None
    """The version that a rollback restored. None: the saga is no rollback."""
    documents: int
    removed: int
    chunks: int
    embedded: int
    cached: int
    tokens: int
    cost: Decimal | None
    """Cost of the tokens. None: no price was configured then."""
    currency: str | None
    enricher_tokens: int
    """Tokens that enrichers of the user reported."""
    enricher_requests: int
    enricher_costs: Mapping[str, float]
    """What enrichers of the user cost, by currency."""
    saga: UUID
    run_id: str | None
    retired_by: RetiredBy | None
    """What removed the version. None: it is retained."""


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """A document that differs between an earlier version and head."""

    key: str
    partition: str
    replaces: UUID | None
    """The saga of the latest row."""
    copy_of: UUID | None
    """The saga of the row at the earlier version. None: the document did not exist then."""
    chunk_count: int
    """Number of chunks at the earlier version."""
    fragments: list[int]
    """Fragments that contained the rows at the earlier version."""
    chunks_at_head: int
    is_latest: bool
    """Whether readers at head see the document."""

    @property
    def change(self) -> Literal["remove", "return", "replace"]:
        """The effect of a rollback on the document."""
        if self.copy_of is None:
            return "remove"
        return "replace" if self.is_latest else "return"


def publication_history(connection: Connection, generation: str, limit: int) -> list[PublicationRow]:
    """Return the last publications, newest first."""
    with connection.cursor(row_factory=row_of(PublicationRow)) as cursor:
        return cursor.execute(query("publication_history"), {"generation": generation, "limit": limit}).fetchall()


def is_publication(connection: Connection, generation: str, version: int) -> bool:
    """Whether a version ever was head."""
    row = connection.execute(query("is_publication"), {"generation": generation, "version": version}).fetchone()
    return row is not None and row["found"]


def is_retained(connection: Connection, generation: str, version: int) -> bool:
    """Whether a version was head and nothing removed it or its rows."""
    row = connection.execute(query("is_retained"), {"generation": generation, "version": version}).fetchone()
    return row is not None and row["found"]


def retired_by(connection: Connection, generation: str, version: int) -> RetiredBy | None:
    """Return what removed the version of a publication; None if it is retained or no publication."""
    row = connection.execute(query("retired_by"), {"generation": generation, "version": version}).fetchone()
    return None if row is None or row["retired_by"] is None else RetiredBy(row["retired_by"])


def published_versions(connection: Connection, generation: str, among: Collection[int]) -> set[int]:
    """Return those of the versions that ever were head."""
    found = connection.execute(query("published_versions"), {"generation": generation, "among": list(among)})
    return {row["published_version"] for row in found}


def oldest_needed(
    connection: Connection, generation: str, *, days: int, publications: int, at_least: int | None
) -> int:
    """Return the oldest version that is needed.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the versions.
        days: Days for which a version is needed after it ceased to be head.
        publications: Number of the last publications that are needed.
        at_least: This version and all later ones are needed, whatever their age.
    """
    wanted = {"generation": generation, "days": days, "publications": publications, "at_least": at_least}
    row = connection.execute(query("oldest_needed"), wanted).fetchone()
    assert row is not None  # noqa: S101  head itself is needed
    return int(row["version"])


def count_publications(
    connection: Connection, generation: str, before: int, limit: int, among: Collection[int] | None = None
) -> int:
    """Keep the counts of at most ``limit`` publications that will be retired. Return for how many they were kept.

    Args:
        connection: Connection of the caller's transaction, which need not hold the lock.
        generation: Generation of the versions.
        before: The first version that is not retired.
        limit: The number of publications.
        among: The versions to retire. None: all before that one.
    """
    values = {"generation": generation, "before": before, "limit": limit}
    return connection.execute(query("count_publications"), {**values, "among": _listed(among)}).rowcount


def retire_versions(
    connection: Connection, generation: str, before: int, among: Collection[int] | None = None, *, by: RetiredBy
) -> None:
    """Mark versions as retired. The counts of their publications are kept already.

    Args:
        connection: Connection of a transaction that holds the lock of the generation.
        generation: Generation of the versions.
        before: The first version that is not retired.
        among: The versions to retire. None: all before that one.
        by: What removes them.
    """
    values = {"generation": generation, "before": before, "among": _listed(among), "by": by}
    connection.execute(query("retire_versions"), values)


def _listed(versions: Collection[int] | None) -> list[int] | None:
    return None if versions is None else list(versions)


def known_names(connection: Connection, generation: str, names: Sequence[str]) -> set[str]:
    """Return those of the names that are a document's key or partition, at head or earlier."""
    rows = connection.execute(query("known_names"), {"generation": generation, "names": list(names)})
    return {row["name"] for row in rows}


def differing_documents(
    connection: Connection, generation: str, version: int, names: Sequence[str] | None
) -> list[VersionDifference]:
    """Return the documents that differ between a version and head, by key in byte order.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        version: Version of a publication.
        names: Keys or partitions to compare. None: all.
    """
    values = {"generation": generation, "version": version, "names": None if names is None else list(names)}
    return [VersionDifference(**row) for row in connection.execute(query("differing_documents"), values)]


def insert_copies(
    connection: Connection, generation: str, saga: UUID, differences: Sequence[VersionDifference]
) -> None:
    """Insert the planned rows of a rollback: copies of earlier rows, or tombstones. No reader sees them yet."""
    values = {
        "generation": generation,
        "saga": saga,
        "keys": [difference.key for difference in differences],
        "partitions": [difference.partition for difference in differences],
        "replaces": [difference.replaces for difference in differences],
        "copies_of": [difference.copy_of for difference in differences],
    }
    connection.execute(query("insert_copies"), values)


def copy_chunk_rows(connection: Connection, saga: UUID, keys: Sequence[str]) -> int:
    """Copy the chunk rows of documents that `insert_copies` planned; return their number."""
    return connection.execute(query("copy_chunk_rows"), {"saga": saga, "keys": list(keys)}).rowcount


def has_chunk_columns(connection: Connection, generation: str, version: int, names: Sequence[str]) -> bool:
    """Whether a chunk at a version has a recorded value of one of these columns."""
    values = {"generation": generation, "version": version, "names": list(names)}
    row = connection.execute(query("has_chunk_columns"), values).fetchone()
    return row is not None and row["found"]


def chunk_columns_in(
    connection: Connection, generation: str, version: int, fragments: Collection[int]
) -> dict[str, Values]:
    """Return the values of chunks by their ids, of the documents at a version that have rows in some fragments."""
    values = {"generation": generation, "version": version, "fragments": list(fragments)}
    return {str(row["id"]): row["columns"] for row in connection.execute(query("chunk_columns_in"), values)}


def chunk_columns_of_copies(connection: Connection, saga: UUID, keys: Sequence[str]) -> dict[str, Values]:
    """Return the values of chunks by their ids, of the rows that a saga's documents are copies of."""
    rows = connection.execute(query("chunk_columns_of_copies"), {"saga": saga, "keys": list(keys)})
    return {str(row["id"]): row["columns"] for row in rows}


def matching_documents(
    connection: Connection, generation: str, version: int, conditions: Mapping[str, object]
) -> list[str]:
    """Return the keys of the documents at a version that satisfy the conditions, in order.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        version: Version of a publication.
        conditions: Conditions as `DocumentFilter.values` returns them.
    """
    values = {"generation": generation, "version": version, **conditions}
    return [row["key"] for row in connection.execute(query("matching_documents"), values)]
