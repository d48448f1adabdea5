"""Earlier versions in the catalog: the publications there were, what differs from one, and rows copied from one.

Every call works in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query


@dataclass(frozen=True, slots=True)
class PublicationRow:
    """One publication, counted."""

    version: int
    published_at: datetime
    kind: str
    target_version: int | None
    """Of a rollback: the version it brought back."""
    documents: int
    removed: int
    chunks: int
    embedded: int
    cached: int
    tokens: int
    cost: Decimal | None
    """Of the tokens. None: no price was configured then."""
    currency: str | None
    saga: UUID
    run_id: str | None


@dataclass(frozen=True, slots=True)
class VersionDifference:
    """A document that readers at an earlier version see otherwise than readers at head."""

    key: str
    partition: str
    replaces: UUID | None
    """The saga whose row stands now."""
    copy_of: UUID | None
    """The saga whose row stood then; None: there was no such document."""
    chunk_count: int
    """Chunks then."""
    fragments: list[int]
    """Where the rows lay then."""
    chunks_at_head: int
    stands: bool
    """Readers at head see the document."""

    @property
    def change(self) -> Literal["remove", "return", "replace"]:
        """What a rollback does to the document."""
        if self.copy_of is None:
            return "remove"
        return "replace" if self.stands else "return"


def publication_history(connection: Connection, generation: str, limit: int) -> list[PublicationRow]:
    """Publications, newest first."""
    rows = connection.execute(query("publication_history"), {"generation": generation, "limit": limit})
    return [PublicationRow(**row) for row in rows]


def is_publication(connection: Connection, generation: str, version: int) -> bool:
    """Whether a version ever was head."""
    row = connection.execute(query("is_publication"), {"generation": generation, "version": version}).fetchone()
    return row is not None and row["found"]


def is_retained(connection: Connection, generation: str, version: int) -> bool:
    """Whether a version was head and retention took none of its rows."""
    row = connection.execute(query("is_retained"), {"generation": generation, "version": version}).fetchone()
    return row is not None and row["found"]


def published_versions(connection: Connection, generation: str, among: Collection[int]) -> set[int]:
    """Those of some versions that ever were head."""
    found = connection.execute(query("published_versions"), {"generation": generation, "among": list(among)})
    return {row["published_version"] for row in found}


def retire_versions(
    connection: Connection, generation: str, *, days: int, publications: int, at_least: int | None
) -> int:
    """Note that versions before the oldest that is still needed go, and what they had brought.

    Args:
        connection: Of a transaction that has the corpus' lock.
        generation: Whose versions.
        days: A version is needed so long after it ceased to be head.
        publications: So many of the last ones are needed.
        at_least: This one and all since are needed, whatever their age.

    Returns:
        The oldest version that is needed.
    """
    wanted = {"generation": generation, "days": days, "publications": publications, "at_least": at_least}
    row = connection.execute(query("oldest_needed"), wanted).fetchone()
    assert row is not None  # noqa: S101  head itself is needed
    connection.execute(query("retire_versions"), {"generation": generation, "oldest": row["version"]})
    return int(row["version"])


def known_names(connection: Connection, generation: str, names: Sequence[str]) -> set[str]:
    """Those of the names that are a document's key or partition, at head or earlier."""
    rows = connection.execute(query("known_names"), {"generation": generation, "names": list(names)})
    return {row["name"] for row in rows}


def differing_documents(
    connection: Connection, generation: str, version: int, names: Sequence[str] | None
) -> list[VersionDifference]:
    """What differs between a version and head, by key in byte order.

    Args:
        connection: Of the caller's transaction.
        generation: Whose documents.
        version: A publication.
        names: Look at these keys or partitions only. None: at all.
    """
    values = {"generation": generation, "version": version, "names": None if names is None else list(names)}
    return [VersionDifference(**row) for row in connection.execute(query("differing_documents"), values)]


def insert_copies(
    connection: Connection, generation: str, saga: UUID, differences: Sequence[VersionDifference]
) -> None:
    """Plan document rows that repeat earlier ones, or take out what had no row then; seen by nobody yet."""
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
    """Repeat the chunk rows of documents planned by `insert_copies`; returns how many there were."""
    return connection.execute(query("copy_chunk_rows"), {"saga": saga, "keys": list(keys)}).rowcount


def matching_documents(
    connection: Connection, generation: str, version: int, conditions: Mapping[str, object]
) -> list[str]:
    """Keys of documents that readers at a version see and that satisfy conditions, in order.

    Args:
        connection: Of the caller's transaction.
        generation: Whose documents.
        version: A publication.
        conditions: As `DocumentFilter.values` gives them.
    """
    values = {"generation": generation, "version": version, **conditions}
    return [row["key"] for row in connection.execute(query("matching_documents"), values)]
