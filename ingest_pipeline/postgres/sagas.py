"""The ledger: one row for each saga, and the data files that it staged.

Every call works in its caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from ingest_pipeline.errors import FencedError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.database import Connection, sanitize_text
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.processes import is_dead, this_process
from ingest_pipeline.types import Price, Usage

SagaKind = Literal["create", "ingest", "transaction", "restore", "rollback", "maintenance", "batch", "rebuild", "other"]
SagaState = Literal["preparing", "prepared", "published", "compensated", "failed", "abandoned", "adopted"]


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
    requests: int
    retries: int
    tokens: int
    embedded: int
    api_seconds: float
    price: Decimal | None
    currency: str | None
    price_as_of: date | None
    error: str | None

    @property
    def usage(self) -> Usage:
        """What its requests took."""
        return Usage(self.embedded, 0, self.tokens, self.requests, self.retries, self.api_seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a saga."""

    state: SagaState
    was_prepared: bool
    """Else it made no version."""


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
    """Open a saga, in state ``preparing``; its id is made up unless given.

    A rollback has a target version. The price is that of what the saga will buy.
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
    """The saga's row, None if there is none."""
    with connection.cursor(row_factory=class_row(SagaRow)) as cursor:
        return cursor.execute(query("read_saga"), {"id": saga}).fetchone()


def clock(connection: Connection) -> datetime:
    """The time by which the ledger's times are to be judged: this machine's clock may be another."""
    row = connection.execute(query("clock")).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    now: datetime = row["now"]
    return now


def touch(connection: Connection, saga: UUID) -> None:
    """Say that the saga's writer lives.

    Raises:
        FencedError: Somebody took it for dead and settled the saga.
    """
    _expect_row(connection, "touch_saga", saga, {"id": saga})


def record_fragment(connection: Connection, saga: UUID, *, name: str, row_count: int) -> None:
    """Say that a data file of the saga was written. The saga cannot be settled before the transaction ends.

    Raises:
        FencedError: Somebody took its writer for dead and settled the saga.
    """
    touch(connection, saga)
    connection.execute(query("insert_fragment"), {"saga": saga, "name": name, "row_count": row_count})


def mark_prepared(connection: Connection, saga: UUID) -> None:
    """Nothing is left to do but to publish.

    Raises:
        FencedError: Somebody settled the saga.
    """
    _expect_row(connection, "prepare_saga", saga, {"id": saga})


def mark_published(connection: Connection, saga: UUID, *, base_version: int, version: int) -> None:
    """The saga's one good end, in the transaction that moves head.

    Raises:
        FencedError: Somebody settled the saga.
    """
    _expect_row(connection, "publish_saga", saga, {"id": saga, "base_version": base_version, "version": version})


def mark_ended(connection: Connection, saga: UUID, state: Literal["failed", "abandoned"], error: str) -> bool:
    """End an unfinished saga without a publication; False if it had ended."""
    found = connection.execute(query("end_saga"), {"id": saga, "state": state, "error": sanitize_text(error)})
    return found.fetchone() is not None


def abandon_live(connection: Connection, generation: str, error: str, keep: Sequence[UUID] = ()) -> list[UUID]:
    """End all unfinished sagas but some: nothing of theirs may be published any more. Their writers are fenced."""
    values = {"generation": generation, "error": error, "keep": list(keep)}
    rows = connection.execute(query("abandon_live_sagas"), values).fetchall()
    return [row["id"] for row in rows]


def mark_compensated(connection: Connection, sagas: Sequence[UUID], error: str) -> list[UUID]:
    """End those of the sagas whose version was undone; returns them."""
    found = connection.execute(query("compensate_sagas"), {"ids": list(sagas), "error": error})
    return [row["id"] for row in found]


def abandon_dead(
    connection: Connection, generation: str, *, limit: float, dead_runs: Sequence[str] = ()
) -> tuple[list[UUID], list[UUID]]:
    """End the unfinished sagas whose writer is gone: its process has ended, its run has, or it is silent.

    Taking a living writer for dead is safe: it is fenced, and what it bought stays.

    Args:
        connection: Of the caller's transaction.
        generation: Whose sagas.
        limit: Seconds without a sign of life.
        dead_runs: Dagster runs known to have ended.

    Returns:
        Those that were ended, and those whose row a backend of theirs still holds; they were left as they are.
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
    """Sagas in doubt, oldest first."""
    with connection.cursor(row_factory=class_row(SagaRow)) as cursor:
        return cursor.execute(query("unfinished_sagas"), {"generation": generation}).fetchall()


def publications(connection: Connection, generation: str, limit: int) -> list[SagaRow]:
    """Published sagas, newest first."""
    with connection.cursor(row_factory=class_row(SagaRow)) as cursor:
        return cursor.execute(query("published_sagas"), {"generation": generation, "limit": limit}).fetchall()


def unreported(connection: Connection, generation: str) -> list[SagaRow]:
    """Publications of Dagster runs that were not yet reported to Dagster, oldest first."""
    with connection.cursor(row_factory=class_row(SagaRow)) as cursor:
        return cursor.execute(query("unreported_sagas"), {"generation": generation}).fetchall()


def mark_reported(connection: Connection, saga: UUID) -> None:
    """Dagster knows of the publication."""
    connection.execute(query("mark_reported"), {"id": saga})


def forget_fragments(connection: Connection, saga: UUID) -> None:
    """Drop the records of a saga's data files: a version holds them now."""
    connection.execute(query("forget_fragments"), {"saga": saga})


def live_sagas(connection: Connection, generation: str) -> set[UUID]:
    """Ids of the unfinished sagas."""
    return {row["id"] for row in connection.execute(query("live_sagas"), {"generation": generation})}


def outcomes(connection: Connection, sagas: Collection[UUID]) -> dict[UUID, Outcome]:
    """What became of those of the sagas that the ledger knows."""
    rows = connection.execute(query("saga_outcomes"), {"ids": list(sagas)})
    return {row["id"]: Outcome(row["state"], row["was_prepared"]) for row in rows}


def record_unknown(
    connection: Connection,
    generation: str,
    sagas: Mapping[UUID, int],
    state: Literal["compensated", "adopted"],
    error: str,
) -> None:
    """Note sagas that only the table knows, with a version each. Those that the ledger knows stay as they are."""
    values = {"generation": generation, "ids": list(sagas), "versions": list(sagas.values()), "state": state}
    connection.execute(query("insert_unknown"), {**values, "writer": this_process(), "error": sanitize_text(error)})


def adopt(connection: Connection, generation: str, sagas: Collection[UUID], error: str) -> None:
    """Note that a rebuild of the catalog took over what sagas had published; those that are published stay so."""
    connection.execute(query("adopt_sagas"), {"generation": generation, "ids": list(sagas), "error": error})


def known_sagas(connection: Connection, generation: str, sagas: Collection[UUID]) -> set[UUID]:
    """Those of the ids that are sagas of the corpus."""
    found = connection.execute(query("known_sagas"), {"generation": generation, "ids": list(sagas)})
    return {row["id"] for row in found}


def ends(connection: Connection, generation: str, sagas: Collection[UUID]) -> dict[UUID, datetime]:
    """When those of the sagas ended that did; one that is live counts as ending now."""
    found = connection.execute(query("saga_ends"), {"generation": generation, "ids": list(sagas)})
    return {row["id"]: row["ended_at"] for row in found}


def forget_ended(connection: Connection, generation: str, *, dry_run: bool = False) -> int:
    """Drop what sagas that published nothing left in the ledger and the catalog; returns how many rows.

    Vectors they bought stay until their texts stand at head, or for a week: the next attempt will want them.
    """
    spent = connection.execute(query("spent_batches"), {"generation": generation}).fetchall()
    # As arrays: a temporary table would demand a right that a writer need not have.
    batches = {name + "s": [row[name] for row in spent] for name in ("saga", "ordinal")}
    name = "count_ended" if dry_run else "forget_ended"
    row = connection.execute(query(name), {"generation": generation, **batches}).fetchone()
    return int(row["found"]) if row else 0


def has_concurrent_ingest(connection: Connection, generation: str, saga: UUID) -> bool:
    """Whether another saga of the corpus is unfinished, and so may buy vectors at any moment."""
    row = connection.execute(query("has_concurrent_ingest"), {"generation": generation, "saga": saga}).fetchone()
    return row is not None and row["found"]


def forget_sagas(connection: Connection, generation: str) -> None:
    """Delete the sagas, with what is recorded of them. Nothing of the corpus may be left in the catalog."""
    connection.execute(query("forget_sagas"), {"generation": generation})


def _expect_row(connection: Connection, name: str, saga: UUID, values: dict[str, object]) -> None:
    if connection.execute(query(name), values).fetchone() is None:
        row = read(connection, saga)
        state = "unknown to the ledger" if row is None else row.state
        raise FencedError(f"Saga {saga} is {state}: its writer was taken for dead")
