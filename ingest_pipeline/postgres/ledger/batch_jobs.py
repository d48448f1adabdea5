"""The ledger's rows about batch jobs. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.rows import row_of
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.processes import this_process


class BatchJobState(StrEnum):
    """The state of a batch job."""

    SUBMITTING = "submitting"
    """Recorded. The job may not have reached the API."""
    SUBMITTED = "submitted"
    COLLECTED = "collected"
    """At least one vector was received."""
    FAILED = "failed"
    """No vector was received, or the API never received the job."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch job: texts that were submitted to the API's Batch endpoint."""

    saga: UUID
    """The saga in the ledger under which the vectors are stored. The API keeps its id as metadata of the job."""
    embedding: str
    keys: list[str]
    """Keys of the documents that wait for the vectors."""
    text_hashes: list[UUID]
    """Hashes in the order of the requests. Each request except the last has `texts_a_request` texts."""
    texts_a_request: int
    characters: int
    state: BatchJobState
    api_batch: str | None
    """The id of the job at the API. None: the job may not have reached the API."""
    writer: str
    created_at: datetime
    age: timedelta
    """Time since submission, by the database's clock."""
    ended_at: datetime | None
    collected: int
    """Number of vectors that were received."""
    error: str | None

    def request(self, number: int) -> list[UUID]:
        """Return the text hashes of one request, [] if no request has that number."""
        start = number * self.texts_a_request
        return self.text_hashes[start : start + self.texts_a_request] if number >= 0 else []


def insert_batch_job(
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
    """Record a batch job before it is submitted to the API."""
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
    connection.execute(query("insert_batch_job"), values)


def renew(connection: Connection, saga: UUID) -> bool:
    """Restart the age of a job; False if another process closed it because its writer was silent for too long."""
    return connection.execute(query("renew_batch_job"), {"saga": saga}).fetchone() is not None


def mark_submitted(connection: Connection, saga: UUID, api_batch: str) -> None:
    """Record the API's id of the job. A closed job also gets its id, because the API bills it."""
    connection.execute(query("mark_batch_job_submitted"), {"saga": saga, "api_batch": api_batch})


def end(connection: Connection, saga: UUID, *, collected: int, error: str | None) -> bool:
    """Close a job, as failed if no vector was collected; False if another process already closed it."""
    state = BatchJobState.COLLECTED if collected else BatchJobState.FAILED
    values = {"saga": saga, "state": state, "collected": collected, "error": error}
    return connection.execute(query("end_batch_job"), values).fetchone() is not None


def open_batch_jobs(connection: Connection, generation: str) -> list[BatchJob]:
    """Return the jobs whose vectors may still arrive, oldest first."""
    with connection.cursor(row_factory=row_of(BatchJob)) as cursor:
        return cursor.execute(query("open_batch_jobs"), {"generation": generation}).fetchall()


def recent(connection: Connection, generation: str, limit: int) -> list[dict[str, Any]]:
    """Return the counts and outcomes of the last jobs, newest first."""
    return connection.execute(query("recent_batch_jobs"), {"generation": generation, "limit": limit}).fetchall()
