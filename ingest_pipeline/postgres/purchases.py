"""What was bought and could not be used, and which endpoints serve which model and width.

Every call works in its caller's transaction.
"""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Usage


def is_served(connection: Connection, endpoint: str, embedding: str) -> bool:
    """Whether the endpoint ever answered with vectors of this model and width.

    Args:
        connection: Of the caller's transaction.
        endpoint: Its address, without credentials.
        embedding: Model and dimensions, as in the recipe.
    """
    row = connection.execute(query("is_served"), {"endpoint": endpoint, "embedding": embedding}).fetchone()
    return row is not None and row["found"]


def mark_served(connection: Connection, endpoint: str, embedding: str) -> None:
    """Note that it did."""
    connection.execute(query("mark_served"), {"endpoint": endpoint, "embedding": embedding})


def forget_served(connection: Connection, endpoint: str, embedding: str) -> None:
    """Note that it no longer does: the next run sends one text alone before it sends a batch."""
    connection.execute(query("forget_served"), {"endpoint": endpoint, "embedding": embedding})


def record_unusable(connection: Connection, saga: UUID, *, characters: int, usage: Usage) -> None:
    """Count what the API was sent and billed for texts of which no vector could be used; also if the saga was settled.

    Args:
        connection: Of the caller's transaction.
        saga: Whose request it was.
        characters: Of the texts, if they were billed.
        usage: What the request took.
    """
    connection.execute(query("count_unusable"), {**asdict(usage), "saga": saga, "characters": characters})
