"""Vectors that exist already, in the ledger or in published rows, and what the embedding API billed.

Every call works in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

import numpy as np
from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Usage, Vector, Vectors


@dataclass(frozen=True, slots=True)
class Cost:
    """What tokens cost at one price list."""

    tokens: int
    currency: str | None
    """None: no price was configured when they were bought."""
    as_of: date | None
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class TextLocation:
    """A text that was published, and where a row with it lies."""

    text_hash: UUID
    fragments: list[int]
    version: int


def record_batch(
    connection: Connection,
    saga: UUID,
    *,
    ordinal: int,
    embedding: str,
    text_hashes: Sequence[UUID],
    vectors: Vectors,
    characters: int,
    usage: Usage,
) -> None:
    """Keep the answer to one embedding request, so that nobody has to buy it again; also if the saga was settled since.

    Args:
        connection: Of the caller's transaction.
        saga: Whose request it was.
        ordinal: Counts the saga's requests.
        embedding: Model and dimensions, as in the recipe.
        text_hashes: Of the inputs, n of them.
        vectors: Shape (n, dimensions).
        characters: Of the inputs together.
        usage: What the request took.
    """
    _count_usage(connection, saga, usage, characters=characters, embedded=len(text_hashes), unusable_tokens=0)
    connection.execute(
        query("insert_batch"),
        {
            "saga": saga,
            "ordinal": ordinal,
            "embedding": embedding,
            "text_hashes": list(text_hashes),
            "vectors": vectors.astype("<f4").tobytes(),
        },
    )


def record_unusable(connection: Connection, saga: UUID, *, characters: int, usage: Usage) -> None:
    """Count what the API was sent and billed for texts of which no vector could be used; also if the saga was settled.

    Args:
        connection: Of the caller's transaction.
        saga: Whose request it was.
        characters: Of the texts, if they were billed.
        usage: What the request took.
    """
    _count_usage(connection, saga, usage, characters=characters, embedded=0, unusable_tokens=usage.tokens)


def _count_usage(
    connection: Connection, saga: UUID, usage: Usage, *, characters: int, embedded: int, unusable_tokens: int
) -> None:
    values = {"saga": saga, "characters": characters, "embedded": embedded, "unusable_tokens": unusable_tokens}
    connection.execute(query("count_usage"), {**asdict(usage), **values})


def forget_batches(connection: Connection, saga: UUID) -> None:
    """Drop the answers that a saga bought: every one of their vectors is in a version now."""
    connection.execute(query("forget_batches"), {"saga": saga})


def staged_vectors(
    connection: Connection, generation: str, *, embedding: str, dimensions: int, text_hashes: Sequence[UUID]
) -> dict[UUID, Vector]:
    """Vectors that some saga of the corpus bought and did not publish yet, by text hash."""
    values = {
        "generation": generation,
        "embedding": embedding,
        "width": 4 * dimensions,
        "text_hashes": list(text_hashes),
    }
    rows = connection.execute(query("staged_vectors"), values)
    return {row["text_hash"]: np.frombuffer(row["vector"], dtype="<f4") for row in rows}


def has_staged_vectors(connection: Connection, generation: str, *, embedding: str, saga: UUID) -> bool:
    """Whether another saga of the corpus left vectors that may be reused."""
    values = {"generation": generation, "embedding": embedding, "saga": saga}
    row = connection.execute(query("has_staged_vectors"), values).fetchone()
    return row is not None and row["found"]


def published_texts(
    connection: Connection, generation: str, text_hashes: Sequence[UUID], *, without: Collection[int] = ()
) -> list[TextLocation]:
    """Those of the texts that were ever published, each once; at head if it stands there.

    Args:
        connection: Of the caller's transaction.
        generation: Whose documents.
        text_hashes: Of the texts.
        without: Ids of fragments that cannot be read. Documents with rows in them are passed over.
    """
    values = {"generation": generation, "text_hashes": list(text_hashes), "without": list(without)}
    with connection.cursor(row_factory=class_row(TextLocation)) as cursor:
        return cursor.execute(query("published_texts"), values).fetchall()


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


def costs(connection: Connection, *, generation: str | None = None, run_id: str | None = None) -> list[Cost]:
    """What a corpus or a run spent, whatever became of its sagas; by currency and day of the price."""
    with connection.cursor(row_factory=class_row(Cost)) as cursor:
        return cursor.execute(query("costs"), {"generation": generation, "run_id": run_id}).fetchall()


def token_ratio(connection: Connection, generation: str) -> tuple[int, int]:
    """Tokens that were billed for the corpus, and the characters of the texts that they were billed for."""
    row = connection.execute(query("token_ratio"), {"generation": generation}).fetchone()
    return (row["tokens"], row["characters"]) if row else (0, 0)
