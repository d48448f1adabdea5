"""Holds: documents that a person rolled back, and which what the source holds must not replace at once.

A hold names the bytes and the recipe that are not to be ingested. It ends when either changes, when a person releases
it, or when the document is published again. Every call works in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query


@dataclass(frozen=True, slots=True)
class Hold:
    """A document that is left as it was rolled back."""

    key: str
    partition: str
    etag: str | None
    """Of the object that is not to be ingested; None: that the source has none is not to be followed."""
    size: int | None
    content_hash: str | None
    recipe: str
    """Fingerprint of the recipe that was in force."""
    saga: UUID
    """The rollback."""
    held_at: datetime
    version: int
    """What it was rolled back to."""


def read_holds(connection: Connection, generation: str, keys: Sequence[str] | None = None) -> dict[str, Hold]:
    """Holds of some documents, or of all, by key."""
    values = {"generation": generation, "keys": None if keys is None else list(keys)}
    return {row["key"]: Hold(**row) for row in connection.execute(query("read_holds"), values)}


def hold_documents(connection: Connection, saga: UUID, recipe: str) -> None:
    """Hold the documents that a rollback changed, unless they are now as the source has them.

    Args:
        connection: Of the publication's transaction.
        saga: The rollback.
        recipe: Fingerprint of the recipe in force.
    """
    connection.execute(query("hold_documents"), {"saga": saga, "recipe": recipe})
    release_superseded(connection, saga)


def release_superseded(connection: Connection, saga: UUID) -> None:
    """End the holds on the documents of a saga that publishes them, but for those it made itself."""
    connection.execute(query("release_superseded"), {"saga": saga})


def release(connection: Connection, generation: str, names: Sequence[str]) -> list[str]:
    """End the holds on documents, given by key or partition; returns their keys."""
    rows = connection.execute(query("release_named"), {"generation": generation, "names": list(names)})
    return sorted(row["key"] for row in rows)


def release_known(connection: Connection, generation: str, holds: Sequence[Hold]) -> None:
    """End these very holds; one that was made since on the same document stays."""
    values = {"generation": generation, "keys": [hold.key for hold in holds], "sagas": [hold.saga for hold in holds]}
    connection.execute(query("release_known"), values)


def refresh_hold(connection: Connection, generation: str, key: str, etag: str) -> None:
    """Note that the object has another ETag and the bytes that are held."""
    connection.execute(query("refresh_hold"), {"generation": generation, "key": key, "etag": etag})
