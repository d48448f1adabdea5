"""The ledger's rows about bulk orders. Every call works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.processes import this_process


@dataclass(frozen=True, slots=True)
class BulkOrder:
    """Texts handed to the API's Batch endpoint."""

    saga: UUID
    """Of the ledger; the vectors are kept under it. The API carries it as metadata."""
    embedding: str
    keys: list[str]
    """Documents that wait for the vectors."""
    text_hashes: list[UUID]
    """In the order of the requests; each but the last has as many as the next field says."""
    texts_a_request: int
    characters: int
    state: Literal["submitting", "submitted", "collected", "failed"]
    api_batch: str | None
    """Its id at the API. None: it may not have come there."""
    writer: str
    ordered_at: datetime
    age: timedelta
    """By the database's clock."""
    ended_at: datetime | None
    collected: int
    """Vectors that came."""
    error: str | None

    def request(self, number: int) -> list[UUID]:
        """The texts of one request; [] if there is none of that number."""
        start = number * self.texts_a_request
        return self.text_hashes[start : start + self.texts_a_request] if number >= 0 else []


def place(
    connection: Connection,
    saga: UUID,
    *,
    generation: str,
    embedding: str,
    keys: Sequence[str],
    text_hashes: Sequence[UUID],
    texts_a_request: int,
    characters: int,
) -> None:
    """Write an order down, before the API hears of it."""
    values = {
        "saga": saga,
        "generation": generation,
        "embedding": embedding,
        "keys": list(keys),
        "text_hashes": list(text_hashes),
        "texts_a_request": texts_a_request,
        "characters": characters,
        "writer": this_process(),
    }
    connection.execute(query("insert_order"), values)


def renew(connection: Connection, saga: UUID) -> bool:
    """Count an order's age from now on; False if somebody gave it up because its writer said nothing for so long."""
    return connection.execute(query("renew_order"), {"saga": saga}).fetchone() is not None


def mark_submitted(connection: Connection, saga: UUID, api_batch: str) -> None:
    """Note under which id the API has the order; also of one that was given up, for it will be paid."""
    connection.execute(query("submit_order"), {"saga": saga, "api_batch": api_batch})


def end(connection: Connection, saga: UUID, *, collected: int, error: str | None) -> bool:
    """Close an order, which has failed if nothing was collected; False if somebody else did."""
    state = "collected" if collected else "failed"
    values = {"saga": saga, "state": state, "collected": collected, "error": error}
    return connection.execute(query("end_order"), values).fetchone() is not None


def open_orders(connection: Connection, generation: str) -> list[BulkOrder]:
    """Orders whose vectors may still come, oldest first."""
    with connection.cursor(row_factory=class_row(BulkOrder)) as cursor:
        return cursor.execute(query("open_orders"), {"generation": generation}).fetchall()


def recent(connection: Connection, generation: str, limit: int) -> list[dict[str, Any]]:
    """What became of the last orders, newest first, in counts."""
    return connection.execute(query("recent_orders"), {"generation": generation, "limit": limit}).fetchall()
