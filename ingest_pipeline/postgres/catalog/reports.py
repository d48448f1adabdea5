"""Reports from the catalog: the history of documents, the progress of runs, counts at head.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.sagas import RetiredBy, SagaKind
from ingest_pipeline.postgres.rows import row_of
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
    """Cost of the tokens. None: no price was configured then."""
    currency: str | None
    requests: int
    retries: int
    seconds: float
    published_version: int
    superseded_version: int | None
    published_at: datetime
    run_id: str | None
    kind: SagaKind
    target_version: int | None
    """The version that a rollback restored. None: the saga is no rollback."""
    retired_by: RetiredBy | None
    """What removed the version. None: it is retained."""

    @property
    def usage(self) -> Usage:
        """Usage of the requests that embedded the document."""
        return Usage(self.embedded, self.cached, self.tokens, self.requests, self.retries, self.seconds)


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Counts of what a Dagster run has done so far."""

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
    enricher_tokens: int
    """Tokens that enrichers of the user reported."""
    enricher_requests: int
    api_seconds: float
    """Seconds of waiting for the embedding API, summed over concurrent requests."""
    seconds: float
    """Seconds from the beginning of the first saga to the end of the last one."""
    publications: int
    version: int
    """The last version that the run published, 0 if none."""

    @property
    def usage(self) -> Usage:
        """Usage of the run's embedding requests."""
        return Usage(self.embedded, self.cached, self.tokens, self.requests, self.retries, self.api_seconds)


@dataclass(frozen=True, slots=True)
class DocumentRatio:
    """Sizes of the documents at head that have the same format and recipe."""

    recipe: str
    format: str
    """Extension of the keys in lower case, empty if they have none."""
    documents: int
    bytes: int
    characters: int
    chunks: int


def history(connection: Connection, generation: str, key: str | None, limit: int) -> list[DocumentChange]:
    """Return the published changes of one document, or of all, newest first."""
    with connection.cursor(row_factory=row_of(DocumentChange)) as cursor:
        return cursor.execute(
            query("document_history"), {"generation": generation, "key": key, "limit": limit}
        ).fetchall()


def latest_changes(connection: Connection, saga: UUID) -> list[DocumentChange]:
    """Return the changes of a saga that no later publication replaced."""
    with connection.cursor(row_factory=row_of(DocumentChange)) as cursor:
        return cursor.execute(query("latest_changes"), {"saga": saga}).fetchall()


def run_progress(connection: Connection, run_id: str) -> RunProgress:
    """Return what a run has done so far. Any process may call this, during the run or afterwards."""
    found: dict[str, Any] = {}
    for name in ("run_progress", "run_spending"):
        found |= connection.execute(query(name), {"run_id": run_id}).fetchone() or {}
    return RunProgress(**found)


def document_ratios(connection: Connection, generation: str) -> list[DocumentRatio]:
    """Return bytes, characters and chunks of the documents at head, by recipe and format."""
    with connection.cursor(row_factory=class_row(DocumentRatio)) as cursor:
        return cursor.execute(query("document_ratios"), {"generation": generation}).fetchall()


def record_comparison(connection: Connection, generation: str, *, behind: int, oldest: datetime | None) -> None:
    """Record how many documents differed from the source, and since when, at the end of a comparison."""
    values = {"generation": generation, "behind": behind, "oldest": oldest}
    connection.execute(query("record_comparison"), values)


def publication_lag(connection: Connection, saga: UUID) -> float | None:
    """Seconds from the oldest modification of an ingested document to its publication. None: nothing was ingested.

    For documents older than the corpus, the seconds count from the creation of the corpus.
    """
    row = connection.execute(query("publication_lag"), {"saga": saga}).fetchone()
    return None if row is None else row["seconds"]


def totals(connection: Connection, generation: str) -> dict[str, Any]:
    """Return the counts at head and the total usage of all sagas."""
    result: dict[str, Any] = {}
    for name in ("corpus_totals", "corpus_spending"):
        result |= connection.execute(query(name), {"generation": generation}).fetchone() or {}
    return result
