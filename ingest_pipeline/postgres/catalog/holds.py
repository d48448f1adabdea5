"""Holds: records that keep rolled-back documents from being ingested again from an unchanged source.

A hold names the bytes and the recipe that must not be ingested. It ends when either of them changes, when a user
releases it, or when the document is published again. Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest_pipeline.postgres.catalog.recipes import recipe_values
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Recipe


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold on one rolled-back document."""

    key: str
    partition: str
    etag: str | None
    """ETag of the object that must not be ingested. None: the source has no object; keep the document nevertheless."""
    size: int | None
    content_hash: str | None
    recipe: str
    """Fingerprint of the recipe that was in force at the rollback."""
    saga: UUID
    """The saga of the rollback."""
    held_at: datetime
    version: int
    """The version that the rollback restored."""


def read_holds(connection: Connection, generation: str, keys: Sequence[str] | None = None) -> dict[str, Hold]:
    """Return the holds on some documents, or on all, by key."""
    values = {"generation": generation, "keys": None if keys is None else list(keys)}
    return {row["key"]: Hold(**row) for row in connection.execute(query("read_holds"), values)}


def hold_documents(connection: Connection, saga: UUID, recipe: Recipe) -> None:
    """Put the documents that a rollback changed on hold, unless they now agree with the source.

    Args:
        connection: Connection of the publication's transaction.
        saga: Saga of the rollback.
        recipe: The recipe in force.
    """
    connection.execute(query("hold_documents"), {"saga": saga, **recipe_values(recipe)})
    release_superseded(connection, saga)


def release_superseded(connection: Connection, saga: UUID) -> None:
    """End the holds on the documents that a saga publishes, except the holds that the saga itself made."""
    connection.execute(query("release_superseded"), {"saga": saga})


def release(connection: Connection, generation: str, names: Sequence[str]) -> list[str]:
    """End the holds on documents that are named by key or partition; return their keys."""
    rows = connection.execute(query("release_named"), {"generation": generation, "names": list(names)})
    return sorted(row["key"] for row in rows)


def release_known(connection: Connection, generation: str, holds: Sequence[Hold]) -> None:
    """End the given holds. A newer hold on the same document remains."""
    values = {"generation": generation, "keys": [hold.key for hold in holds], "sagas": [hold.saga for hold in holds]}
    connection.execute(query("release_known"), values)


def refresh_hold(connection: Connection, generation: str, key: str, etag: str) -> None:
    """Record a new ETag of an object whose bytes are still on hold."""
    connection.execute(query("refresh_hold"), {"generation": generation, "key": key, "etag": etag})
