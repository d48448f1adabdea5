"""Results of the user's parsers and enrichers that cost money or minutes, and what enrichers report that they took.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Usage


@dataclass(frozen=True, slots=True)
class ResultKey:
    """What a result was made from, and by what."""

    corpus: str
    extension: str
    """Option and class."""
    fingerprint: str
    input_hash: str
    """SHA-256 of what the extension got, hexadecimal."""

    @property
    def values(self) -> dict[str, object]:
        """Parameters of the queries."""
        return {
            "corpus": self.corpus,
            "extension": self.extension,
            "fingerprint": self.fingerprint,
            "input_hash": self.input_hash,
        }


@dataclass(frozen=True, slots=True)
class ExtensionCost:
    """What a call of an enricher cost."""

    amount: Decimal
    currency: str
    as_of: date | None = None
    """Date of the price list. None: the enricher reported the cost."""


def find_result(connection: Connection, key: ResultKey) -> bytes | None:
    """Return a recorded result, which retention then keeps for longer. None: there is none."""
    row = connection.execute(query("find_extension_result"), key.values).fetchone()
    return None if row is None else bytes(row["result"])


def record_result(connection: Connection, key: ResultKey, content_hash: str, result: bytes) -> None:
    """Store a result.

    Args:
        connection: Connection of the caller's transaction.
        key: What it was made from.
        content_hash: SHA-256 of the bytes of the document, hexadecimal.
        result: As the role of the extension wrote it.
    """
    values = {**key.values, "content_hash": content_hash, "result": result}
    connection.execute(query("record_extension_result"), values)


def find_chunk_results(
    connection: Connection, extension: ResultKey, content_hash: str, chunks: Mapping[str, UUID]
) -> dict[str, bytes]:
    """Return the recorded results of chunks by the hash of their input, which retention then keeps for longer.

    Args:
        connection: Connection of the caller's transaction.
        extension: What computes the results; its own hash is not used.
        content_hash: SHA-256 of the bytes of the document, hexadecimal.
        chunks: The text hash of each chunk, by the hash of its input.
    """
    values = {**extension.values, "content_hash": content_hash}
    values |= {"input_hashes": list(chunks), "text_hashes": list(chunks.values())}
    return {row["input_hash"]: bytes(row["result"]) for row in connection.execute(query("find_chunk_results"), values)}


def record_chunk_results(
    connection: Connection,
    extension: ResultKey,
    content_hash: str,
    chunks: Mapping[str, UUID],
    results: Mapping[str, bytes],
) -> None:
    """Store the results of chunks; the arguments are those of `find_chunk_results`, with a result for each chunk."""
    values = {**extension.values, "content_hash": content_hash}
    values |= {
        "input_hashes": list(chunks),
        "text_hashes": list(chunks.values()),
        "results": [results[hashed] for hashed in chunks],
    }
    connection.execute(query("record_chunk_results"), values)


def count_usage(
    connection: Connection, saga: UUID, extension: str, usage: Usage, cost: ExtensionCost | None = None
) -> None:
    """Count what an enricher took, even if the saga was settled meanwhile.

    Args:
        connection: Connection of the caller's transaction.
        saga: Saga that called the enricher.
        extension: Option and class.
        usage: Tokens and requests.
        cost: None: it is not known.
    """
    values: dict[str, object] = {"saga": saga, "tokens": usage.tokens, "requests": usage.requests}
    connection.execute(query("count_extension_usage"), values)
    values |= {
        "extension": extension,
        "currency": None if cost is None else cost.currency,
        "as_of": None if cost is None else cost.as_of,
        "amount": None if cost is None else cost.amount,
    }
    connection.execute(query("add_extension_usage"), values)


def forget_results(connection: Connection, corpus: str, *, days: int | None = None, limit: int | None = None) -> int:
    """Delete results that no kept version needs. Return how many.

    Args:
        connection: Connection of the caller's transaction.
        corpus: The corpus of the results.
        days: Only those that were not used for so many days. None: all that no document of the catalog has.
        limit: Maximum number. None: no limit.
    """
    values = {"corpus": corpus, "days": days, "limit": limit}
    return connection.execute(query("forget_extension_results"), values).rowcount


def drop_results(connection: Connection, corpus: str) -> None:
    """Delete all results of a corpus that is dropped."""
    connection.execute(query("drop_extension_results"), {"corpus": corpus})
