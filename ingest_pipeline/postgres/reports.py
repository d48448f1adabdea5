"""What the catalog reports: the history of documents, what a run did, counts at head.

Every call works in its caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Usage


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """One row of a document's history."""

    key: str
    partition: str
    saga: UUID
    removed: bool
    etag: str | None
    recipe: str | None
    chunk_count: int
    embedded: int
    cached: int
    tokens: int
    cost: Decimal | None
    """Of the tokens. None: no price was configured then."""
    currency: str | None
    requests: int
    retries: int
    seconds: float
    published_version: int
    superseded_version: int | None
    published_at: datetime
    run_id: str | None
    kind: str
    target_version: int | None
    """Of a rollback: the version it brought back."""

    @property
    def usage(self) -> Usage:
        """What embedding it took."""
        return Usage(self.embedded, self.cached, self.tokens, self.requests, self.retries, self.seconds)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What one Dagster run did so far."""

    documents: int
    prepared: int
    published: int
    removed: int
    chunks: int
    cached: int
    embedded: int
    tokens: int
    requests: int
    retries: int
    api_seconds: float
    """Spent waiting for the embedding API, added up over requests that ran at once."""
    seconds: float
    """From the beginning of its first saga to the end of its last."""
    publications: int
    version: int
    """The last version it published, 0 if none."""

    @property
    def usage(self) -> Usage:
        """What its requests took."""
        return Usage(self.embedded, self.cached, self.tokens, self.requests, self.retries, self.api_seconds)


@dataclass(frozen=True, slots=True)
class DocumentRatio:
    """What documents at head of one format and recipe came to."""

    recipe: str
    format: str
    """What their keys end in, in lower case; empty if in nothing."""
    documents: int
    bytes: int
    characters: int
    chunks: int


def history(connection: Connection, generation: str, key: str | None, limit: int) -> list[DocumentChange]:
    """Published changes of one document, or of all, newest first."""
    with connection.cursor(row_factory=class_row(DocumentChange)) as cursor:
        return cursor.execute(
            query("document_history"), {"generation": generation, "key": key, "limit": limit}
        ).fetchall()


def latest_changes(connection: Connection, saga: UUID) -> list[DocumentChange]:
    """What a saga published and nothing superseded since."""
    with connection.cursor(row_factory=class_row(DocumentChange)) as cursor:
        return cursor.execute(query("latest_changes"), {"saga": saga}).fetchall()


def run_progress(connection: Connection, run_id: str) -> RunProgress:
    """What a run did so far; seen from any process, while it runs or afterwards."""
    found: dict[str, Any] = {}
    for name in ("run_progress", "run_spending"):
        found |= connection.execute(query(name), {"run_id": run_id}).fetchone() or {}
    return RunProgress(**found)


def document_ratios(connection: Connection, generation: str) -> list[DocumentRatio]:
    """How many characters and chunks the bytes of the documents at head came to."""
    with connection.cursor(row_factory=class_row(DocumentRatio)) as cursor:
        return cursor.execute(query("document_ratios"), {"generation": generation}).fetchall()


def totals(connection: Connection, generation: str) -> dict[str, Any]:
    """Counts at head, and what was ever bought."""
    result: dict[str, Any] = {}
    for name in ("corpus_totals", "corpus_spending"):
        result |= connection.execute(query(name), {"generation": generation}).fetchone() or {}
    return result
