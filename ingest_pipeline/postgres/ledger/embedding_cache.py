"""Vectors that exist already, in the spool or in published rows, and the usage that the embedding API billed.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Usage

BatchId = tuple[UUID, int]
"""Saga and ordinal of recorded answers. They name the file in the spool."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of tokens at the price of one day, or as enrichers of the user reported it."""

    tokens: int
    currency: str | None
    """None: no price was configured when the tokens were billed."""
    as_of: date | None
    """None: no price was configured, or enrichers reported the cost themselves."""
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class TextLocation:
    """A published text and the fragments that contain a row with it."""

    text_hash: UUID
    fragments: list[int]
    version: int


@dataclass(frozen=True, slots=True)
class SpooledBatch:
    """The row of a file in the spool. Its saga and ordinal name the file."""

    saga: UUID
    ordinal: int
    checksum: bytes


@dataclass(frozen=True, slots=True)
class SpooledText:
    """A text whose vector is in a file of the spool."""

    text_hash: UUID
    batch: SpooledBatch
    index: int
    """Position of its vector in the file."""
    vector: bytes | None = None
    """The vector itself, little-endian float32, if the store did not take the file."""


def record_batch(
    connection: Connection,
    saga: UUID,
    *,
    ordinal: int,
    embedding: str,
    text_hashes: Sequence[UUID],
    checksum: bytes,
    characters: int,
    usage: Usage,
    vectors: bytes | None = None,
) -> bool:
    """Record answers to embedding requests, so that no run pays for them again, even if the saga was settled.

    The call locks the row of the saga, so that no sweep removes the file meanwhile.

    Args:
        connection: Connection of the caller's transaction.
        saga: Saga that sent the requests.
        ordinal: Number of the batch within the saga. Later batches have higher ones.
        embedding: Model and dimensions, as in the recipe.
        text_hashes: Hashes of the inputs, in the order of the vectors in the file of the spool.
        checksum: Checksum of the file.
        characters: Total length of the inputs.
        usage: Usage of the requests.
        vectors: What the file would contain, if the store did not take it.

    Returns:
        Whether the saga has ended. A sweep may then have removed the file before this call.
    """
    _count_usage(connection, saga, usage, characters=characters, embedded=len(text_hashes), unusable_tokens=0)
    if not text_hashes:
        return False
    values = {"saga": saga, "ordinal": ordinal, "embedding": embedding, "checksum": checksum, "vectors": vectors}
    row = connection.execute(query("insert_batch"), {**values, "text_hashes": list(text_hashes)}).fetchone()
    return row is not None and bool(row["has_ended"])


def record_unusable(connection: Connection, saga: UUID, *, characters: int, usage: Usage) -> None:
    """Count the usage of a request whose vectors cannot be used, even if the saga was settled meanwhile.

    Args:
        connection: Connection of the caller's transaction.
        saga: Saga that sent the request.
        characters: Total length of the texts, if they were billed.
        usage: Usage of the request.
    """
    _count_usage(connection, saga, usage, characters=characters, embedded=0, unusable_tokens=usage.tokens)


def _count_usage(
    connection: Connection, saga: UUID, usage: Usage, *, characters: int, embedded: int, unusable_tokens: int
) -> None:
    values = {"saga": saga, "characters": characters, "embedded": embedded, "unusable_tokens": unusable_tokens}
    connection.execute(query("count_usage"), {**asdict(usage), **values})


def forget_batches(connection: Connection, saga: UUID) -> list[int]:
    """Delete the recorded answers of a saga, whose vectors are all in a version of the table.

    Returns:
        The ordinals of their files in the spool, which are not needed after the transaction.
    """
    return [row["ordinal"] for row in connection.execute(query("forget_batches"), {"saga": saga})]


def forget_lost_batch(connection: Connection, batch: SpooledBatch) -> int:
    """Delete the row of a file that is lost; return the number of its texts, 0 if there is no such row any more."""
    values = {"saga": batch.saga, "ordinal": batch.ordinal, "checksum": batch.checksum}
    row = connection.execute(query("forget_batch"), values).fetchone()
    return 0 if row is None else int(row["texts"])


def spooled_batches(connection: Connection, generation: str) -> set[BatchId]:
    """Return saga and ordinal of each recorded file in the spool of a generation."""
    rows = connection.execute(query("spooled_batches"), {"generation": generation})
    return {(row["saga"], row["ordinal"]) for row in rows}


def lock_batches(connection: Connection, saga: UUID) -> set[int]:
    """Lock a saga, so that no more answers are recorded under it; return the ordinals of its recorded files."""
    connection.execute(query("lock_saga"), {"saga": saga})
    return {row["ordinal"] for row in connection.execute(query("batches_of"), {"saga": saga})}


def recorded_texts(
    connection: Connection, generation: str, embedding: str, *, known: Mapping[UUID, int], limit: int
) -> list[tuple[BatchId, list[UUID]]]:
    """Return some batches that sagas of the generation recorded and have not published, with their texts.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the sagas.
        embedding: Model and dimensions, as in the recipe.
        known: The last ordinal of each saga that the caller has read. Batches after it are returned.
        limit: Maximum number of batches.

    Returns:
        The first of these batches, by saga and ordinal.
    """
    values = {
        "generation": generation,
        "embedding": embedding,
        "sagas": list(known.keys()),
        "ordinals": list(known.values()),
        "limit": limit,
    }
    rows = connection.execute(query("recorded_texts"), values)
    return [((row["saga"], row["ordinal"]), row["text_hashes"]) for row in rows]


def staged_texts(
    connection: Connection, batches: Collection[BatchId], *, dimensions: int, text_hashes: Sequence[UUID]
) -> list[SpooledText]:
    """Return where the vectors of the texts are in the batches, if these are still there."""
    values = {
        "sagas": [saga for saga, _ in batches],
        "ordinals": [ordinal for _, ordinal in batches],
        "width": 4 * dimensions,
        "text_hashes": list(text_hashes),
    }
    return [
        SpooledText(
            row["text_hash"],
            SpooledBatch(row["saga"], row["ordinal"], bytes(row["checksum"])),
            row["index"],
            None if row["vector"] is None else bytes(row["vector"]),
        )
        for row in connection.execute(query("staged_texts"), values)
    ]


def published_texts(
    connection: Connection, generation: str, text_hashes: Sequence[UUID], *, without: Collection[int] = ()
) -> list[TextLocation]:
    """Return one location of each text that was ever published, preferably at head.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        text_hashes: Hashes of the texts.
        without: Ids of fragments that cannot be read. Documents with rows in them are ignored.
    """
    values = {"generation": generation, "text_hashes": list(text_hashes), "without": list(without)}
    with connection.cursor(row_factory=class_row(TextLocation)) as cursor:
        return cursor.execute(query("published_texts"), values).fetchall()


def is_served(connection: Connection, endpoint: str, embedding: str) -> bool:
    """Whether the endpoint ever answered with vectors of this model and width.

    Args:
        connection: Connection of the caller's transaction.
        endpoint: Address of the endpoint, without credentials.
        embedding: Model and dimensions, as in the recipe.
    """
    row = connection.execute(query("is_served"), {"endpoint": endpoint, "embedding": embedding}).fetchone()
    return row is not None and row["found"]


def mark_served(connection: Connection, endpoint: str, embedding: str) -> None:
    """Record that the endpoint answered with vectors of this model and width."""
    connection.execute(query("mark_served"), {"endpoint": endpoint, "embedding": embedding})


def forget_served(connection: Connection, endpoint: str, embedding: str) -> None:
    """Delete the record of `mark_served`: the next run sends a single text before it sends a batch."""
    connection.execute(query("forget_served"), {"endpoint": endpoint, "embedding": embedding})


def costs(connection: Connection, *, generation: str | None = None, run_id: str | None = None) -> list[Cost]:
    """Return the costs of a generation or a run, by currency and day of the price, whatever its sagas' outcomes.

    Includes what enrichers of the user reported.
    """
    with connection.cursor(row_factory=class_row(Cost)) as cursor:
        return cursor.execute(query("costs"), {"generation": generation, "run_id": run_id}).fetchall()


def token_ratio(connection: Connection, generation: str) -> tuple[int, int]:
    """Return the billed tokens of a generation, and the characters of the texts for which they were billed."""
    row = connection.execute(query("token_ratio"), {"generation": generation}).fetchone()
    return (row["tokens"], row["characters"]) if row else (0, 0)
