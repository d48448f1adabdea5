"""The ledger: one row for each saga, and the data files that it staged.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal
from uuid import UUID

from ingest_pipeline.errors import FencedError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.rows import row_of
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.texts import sanitize_text
from ingest_pipeline.processes import is_dead, this_process
from ingest_pipeline.types import Price, Usage


class SagaKind(StrEnum):
    """The kind of work that a saga does."""

    CREATE = "create"
    INGEST = "ingest"
    TRANSACTION = "transaction"
    RESTORE = "restore"
    ROLLBACK = "rollback"
    MAINTENANCE = "maintenance"
    BATCH = "batch"
    REBUILD = "rebuild"
    ERASURE = "erasure"
    OTHER = "other"
    """Recorded only in the table, by another database or in a lost history."""


class SagaState(StrEnum):
    """The state of a saga. A trigger refuses transitions that the protocol does not have."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    """Only the publication remains."""
    BLOCKED = "blocked"
    """The publication did not pass its gates. It is kept until it is released, dropped or overtaken."""
    PUBLISHED = "published"
    COMPLETED = "completed"
    """A batch job that was recorded, or the test of an endpoint: there is nothing to publish."""
    COMPENSATED = "compensated"
    """Its version was undone."""
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Its writer is gone."""
    ADOPTED = "adopted"
    """A rebuild of the catalog took over its publication."""


class RetiredBy(StrEnum):
    """Why a version of a publication is no longer retained."""

    RETENTION = "retention"
    ERASURE = "erasure"
    REBUILD = "rebuild"
    """The table lacked the version when the catalog was rebuilt."""


@dataclass(frozen=True, slots=True)
class SagaRow:
    """One row of the ledger."""

    id: UUID
    generation: str
    kind: SagaKind
    state: SagaState
    base_version: int
    published_version: int | None
    run_id: str | None
    writer: str
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    reported_at: datetime | None
    """When the publication was reported to Dagster. None: it was not, or need not be."""
    requests: int
    retries: int
    tokens: int
    embedded: int
    api_seconds: float
    price: Decimal | None
    currency: str | None
    price_as_of: date | None
    error: str | None
    retired_by: RetiredBy | None
    """What removed the version of the saga. None: nothing did, or it made none."""

    @property
    def usage(self) -> Usage:
        """Usage of the saga's embedding requests."""
        return Usage(self.embedded, 0, self.tokens, self.requests, self.retries, self.api_seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a saga."""

    state: SagaState
    was_prepared: bool
    """Whether the saga was prepared. A saga that was not made no version."""


def begin(
    connection: Connection,
    *,
    generation: str,
    kind: SagaKind,
    base_version: int,
    run_id: str | None = None,
    saga: UUID | None = None,
    target_version: int | None = None,
    price: Price | None = None,
) -> UUID:
    """Insert a saga in state ``preparing`` and return its id, which is generated unless given.

    Only a rollback has a target version. The price applies to all tokens that the saga is billed for.
    """
    saga = saga or uuid.uuid4()
    with boundary(Boundary.SAGA_BEGUN):
        connection.execute(
            query("begin_saga"),
            {
                "id": saga,
                "generation": generation,
                "kind": kind,
                "base_version": base_version,
                "run_id": run_id,
                "writer": this_process(),
                "target_version": target_version,
                "price": price and price.per_million_tokens,
                "currency": price and price.currency,
                "price_as_of": price and price.as_of,
            },
        )
    return saga


def read(connection: Connection, saga: UUID) -> SagaRow | None:
    """Return the row of a saga, None if there is none."""
    with connection.cursor(row_factory=row_of(SagaRow)) as cursor:
        return cursor.execute(query("read_saga"), {"id": saga}).fetchone()


def clock(connection: Connection) -> datetime:
    """Return the database's time, to compare with the ledger's times: the local clock may differ."""
    row = connection.execute(query("clock")).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    now: datetime = row["now"]
    return now


def touch(connection: Connection, saga: UUID) -> None:
    """Record a heartbeat of the saga's writer.

    Raises:
        FencedError: Another process took the writer for dead and settled the saga.
    """
    _expect_row(connection, "touch_saga", saga, {"id": saga})


def record_fragment(connection: Connection, saga: UUID, *, name: str, row_count: int) -> None:
    """Record a data file that the saga wrote. The saga cannot be settled before the transaction ends.

    Raises:
        FencedError: Another process took the writer for dead and settled the saga.
    """
    touch(connection, saga)
    connection.execute(query("insert_fragment"), {"saga": saga, "name": name, "row_count": row_count})


def mark_prepared(connection: Connection, saga: UUID) -> None:
    """Move a saga to state ``prepared``: only the publication remains.

    Raises:
        FencedError: Another process settled the saga.
    """
    _expect_row(connection, "prepare_saga", saga, {"id": saga})


def mark_published(connection: Connection, saga: UUID, *, base_version: int, version: int) -> None:
    """Move a saga to state ``published``, in the transaction that moves head.

    Raises:
        FencedError: Another process settled the saga.
    """
    _expect_row(connection, "publish_saga", saga, {"id": saga, "base_version": base_version, "version": version})


def mark_completed(connection: Connection, saga: UUID) -> bool:
    """End a saga that did its work and has nothing to publish; False if it had already ended.

    Only a batch job is such a saga. The vectors that it embedded are in the embedding cache.
    """
    return connection.execute(query("complete_saga"), {"id": saga}).fetchone() is not None


def mark_failed(connection: Connection, saga: UUID, error: str) -> bool:
    """End an unfinished saga that could not be published; False if it had already ended."""
    found = connection.execute(query("fail_saga"), {"id": saga, "error": sanitize_text(error)})
    return found.fetchone() is not None


def abandon_live(connection: Connection, generation: str, error: str, keep: Sequence[UUID] = ()) -> list[UUID]:
    """Mark all unfinished sagas except some as abandoned. Their writers are fenced and cannot publish any more."""
    values = {"generation": generation, "error": error, "keep": list(keep)}
    rows = connection.execute(query("abandon_live_sagas"), values).fetchall()
    return [row["id"] for row in rows]


def mark_compensated(connection: Connection, sagas: Sequence[UUID], error: str) -> list[UUID]:
    """Mark the sagas whose version was undone as compensated; return the ids of those that were prepared."""
    found = connection.execute(query("compensate_sagas"), {"ids": list(sagas), "error": error})
    return [row["id"] for row in found]


def abandon_dead(
    connection: Connection, generation: str, *, limit: float, dead_runs: Sequence[str] = ()
) -> tuple[list[UUID], list[UUID]]:
    """Mark unfinished sagas as abandoned whose process or run has ended, or whose heartbeat is too old.

    It is safe to take a live writer for dead: the writer is fenced, and the vectors that it embedded are kept.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the sagas.
        limit: Seconds without a heartbeat after which a writer counts as dead.
        dead_runs: Dagster runs known to have ended.

    Returns:
        The sagas that were ended, and the unchanged sagas whose row a backend of their writer still locks.
    """
    values = {
        "generation": generation,
        "limit": limit,
        "dead_runs": list(dead_runs),
        "gone": [saga.id for saga in unfinished(connection, generation) if is_dead(saga.writer)],
        "error": "its writer is gone",
    }
    rows = connection.execute(query("abandon_sagas"), values).fetchall()
    return [row["id"] for row in rows if row["ended"]], [row["id"] for row in rows if not row["ended"]]


def unfinished(connection: Connection, generation: str) -> list[SagaRow]:
    """Return the unfinished sagas, oldest first."""
    with connection.cursor(row_factory=row_of(SagaRow)) as cursor:
        return cursor.execute(query("unfinished_sagas"), {"generation": generation}).fetchall()


def publications(connection: Connection, generation: str, limit: int) -> list[SagaRow]:
    """Return the last published sagas, newest first."""
    with connection.cursor(row_factory=row_of(SagaRow)) as cursor:
        return cursor.execute(query("published_sagas"), {"generation": generation, "limit": limit}).fetchall()


def last_change(connection: Connection, generation: str) -> SagaRow | None:
    """Return the last publication that changed what readers see, None if nothing was ever published."""
    with connection.cursor(row_factory=row_of(SagaRow)) as cursor:
        return cursor.execute(query("last_change"), {"generation": generation}).fetchone()


def runs_published(connection: Connection, runs: Collection[str]) -> bool:
    """Whether one of the Dagster runs published anything."""
    row = connection.execute(query("runs_published"), {"runs": list(runs)}).fetchone()
    return row is not None and row["found"]


def unreported(connection: Connection, generation: str) -> list[SagaRow]:
    """Return the publications of Dagster runs that were not yet reported to Dagster, oldest first."""
    with connection.cursor(row_factory=row_of(SagaRow)) as cursor:
        return cursor.execute(query("unreported_sagas"), {"generation": generation}).fetchall()


def mark_reported(connection: Connection, saga: UUID) -> None:
    """Record that the publication was reported to Dagster."""
    connection.execute(query("mark_reported"), {"id": saga})


def forget_fragments(connection: Connection, saga: UUID) -> None:
    """Delete the records of a saga's data files, which are in a version of the table."""
    connection.execute(query("forget_fragments"), {"saga": saga})


def live_sagas(connection: Connection, generation: str) -> set[UUID]:
    """Return the ids of the unfinished sagas."""
    return {row["id"] for row in connection.execute(query("live_sagas"), {"generation": generation})}


def outcomes(connection: Connection, sagas: Collection[UUID]) -> dict[UUID, Outcome]:
    """Return the outcomes of those sagas that the ledger knows."""
    rows = connection.execute(query("saga_outcomes"), {"ids": list(sagas)})
    return {row["id"]: Outcome(SagaState(row["state"]), row["was_prepared"]) for row in rows}


def record_unknown(
    connection: Connection,
    generation: str,
    sagas: Mapping[UUID, int],
    state: Literal[SagaState.COMPENSATED, SagaState.ADOPTED],
    error: str,
) -> None:
    """Insert sagas that only the table records, each with its version. Sagas in the ledger are not changed."""
    values = {"generation": generation, "ids": list(sagas), "versions": list(sagas.values()), "state": state}
    connection.execute(query("insert_unknown"), {**values, "writer": this_process(), "error": sanitize_text(error)})


def adopt(connection: Connection, generation: str, sagas: Collection[UUID], error: str) -> None:
    """Mark sagas as adopted: a rebuild of the catalog took over their publications. Published sagas do not change."""
    connection.execute(query("adopt_sagas"), {"generation": generation, "ids": list(sagas), "error": error})


def known_sagas(connection: Connection, generation: str, sagas: Collection[UUID]) -> set[UUID]:
    """Return those of the ids that are sagas of the generation."""
    found = connection.execute(query("known_sagas"), {"generation": generation, "ids": list(sagas)})
    return {row["id"] for row in found}


def ends(connection: Connection, generation: str, sagas: Collection[UUID]) -> dict[UUID, datetime]:
    """Return the end times of the sagas. A live saga counts as ending now."""
    found = connection.execute(query("saga_ends"), {"generation": generation, "ids": list(sagas)})
    return {row["id"]: row["ended_at"] for row in found}


def forget_ended(connection: Connection, generation: str, *, dry_run: bool = False) -> int:
    """Delete the rows of ended sagas that published nothing from ledger and catalog; return the number of rows.

    Embedded vectors are kept until their texts are at head, at most for a week, so that the next attempt can use them.
    """
    spent = connection.execute(query("spent_batches"), {"generation": generation}).fetchall()
    # Arrays, because a temporary table requires a privilege that a writer may not have.
    batches = {name + "s": [row[name] for row in spent] for name in ("saga", "ordinal")}
    name = "count_ended" if dry_run else "forget_ended"
    row = connection.execute(query(name), {"generation": generation, **batches}).fetchone()
    return int(row["found"]) if row else 0


def has_concurrent_ingest(connection: Connection, generation: str, saga: UUID) -> bool:
    """Whether another saga of the generation is unfinished and may embed texts at any moment."""
    row = connection.execute(query("has_concurrent_ingest"), {"generation": generation, "saga": saga}).fetchone()
    return row is not None and row["found"]


def forget_sagas(connection: Connection, generation: str) -> None:
    """Delete all sagas of a generation and their records. The catalog must have no more rows of the generation."""
    connection.execute(query("forget_sagas"), {"generation": generation})


def _expect_row(connection: Connection, name: str, saga: UUID, values: dict[str, object]) -> None:
    if connection.execute(query(name), values).fetchone() is None:
        row = read(connection, saga)
        state = "unknown to the ledger" if row is None else row.state
        raise FencedError(f"Saga {saga} is {state}: its writer was taken for dead")
