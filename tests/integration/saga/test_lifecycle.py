"""A saga's heartbeat and its ends, whatever the block does."""

# ruff: noqa: PT012  what raises is a block of a saga, so the block has to stand inside

from __future__ import annotations

import logging
import threading
import time
from datetime import date
from decimal import Decimal

import pytest
from psycopg.errors import CheckViolation

from ingest_pipeline.errors import FencedError, UnavailableError
from ingest_pipeline.lance.changes import Change
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.database import Connection, Database, DatabaseConflictError
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga import heartbeat
from ingest_pipeline.saga.lifecycle import Saga
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.saga.transaction import Transaction
from ingest_pipeline.types import Price
from tests.support.world import World, paragraphs

_PATIENCE_SECONDS = 300


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)


def begin(world: World) -> Saga:
    return Saga.begin(world.corpus, SagaKind.INGEST, base_version=world.head)


def planned_rows(world: World, saga: Saga) -> int:
    with world.corpus.database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS found FROM ingest_pipeline.document WHERE saga = %s", (saga.id,)
        ).fetchone()
    assert row is not None
    return int(row["found"])


def plan_a_document(world: World, saga: Saga) -> None:
    with world.corpus.database.transaction() as connection:
        prepared_documents.insert_documents(
            connection,
            generation=world.corpus.generation,
            saga=saga.id,
            recipe=world.context.recipe,
            documents=[DocumentPlan("a.txt", "a.txt", None, None)],
        )


def until_fenced(saga: Saga) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        saga.check_not_fenced()
        time.sleep(0.01)


def heartbeats(saga: Saga) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == f"heartbeat of saga {saga.id}"]


def test_a_saga_records_what_it_begins_with(world: World) -> None:
    price = Price("model", Decimal("0.02"), "EUR", date(2026, 11, 1))
    head = world.head
    with Saga.begin(
        world.corpus, SagaKind.ROLLBACK, base_version=head, run_id="run", target_version=1, price=price
    ) as saga:
        row = saga.row()
        assert (row.generation, row.kind, row.state) == (world.corpus.generation, "rollback", "preparing")
        assert (row.base_version, row.run_id, row.published_version) == (head, "run", None)
        assert (row.price, row.currency, row.price_as_of) == (Decimal("0.02"), "EUR", date(2026, 11, 1))
        with world.database.transaction() as connection:
            found = connection.execute("SELECT target_version FROM ingest_pipeline.saga WHERE id = %s", (saga.id,))
            assert found.fetchone() == {"target_version": 1}
        saga.fail("for the test")


def test_the_row_of_a_saga_whose_corpus_was_dropped_is_an_error(world: World) -> None:
    saga = begin(world)
    with world.database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.saga WHERE id = %s", (saga.id,))
    with pytest.raises(FencedError, match="its corpus was dropped"):
        saga.row()


def test_no_heartbeat_runs_during_the_publication_which_locks_the_row_of_the_saga(world: World, quick: None) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    before, during = [], []

    class Watched(Transaction):
        def write(self, connection: Connection, base: int, version: int) -> Change:
            during.append(heartbeats(saga))
            return super().write(connection, base, version)

    with begin(world) as saga:
        before.append(heartbeats(saga))
        change = Watched(world.corpus, saga.id, world.head)
        change.delete("document = 'a.txt'")
        saga.prepared()
        assert saga.publish(change) == world.head
    assert (len(before[0]), during) == (1, [[]])


def test_the_heartbeat_runs_while_the_block_computes_and_ends_with_it(world: World, quick: None) -> None:
    with begin(world) as saga:
        before = saga.row().seen_at
        end = time.monotonic() + _PATIENCE_SECONDS
        while saga.row().seen_at == before and time.monotonic() < end:
            time.sleep(0.01)
        assert saga.row().seen_at > before
    after = saga.row().seen_at
    time.sleep(0.2)
    assert saga.row().seen_at == after


def test_the_heartbeat_notices_that_its_saga_was_abandoned(world: World, quick: None) -> None:
    with pytest.raises(FencedError, match="taken for dead"), begin(world) as saga:
        saga.check_not_fenced()
        # Not by `recover`, whose silence of 0 seconds a heartbeat may just undercut.
        with world.corpus.database.transaction() as connection:
            assert sagas.abandon_live(connection, world.corpus.generation, "for the test") == [saga.id]
        until_fenced(saga)


def test_the_heartbeat_survives_a_database_that_fails_for_a_while(
    world: World, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch, failures = sagas.touch, iter([UnavailableError("for the test"), DatabaseConflictError("for the test")])

    def fail_twice(*values: object) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        touch(*values)  # pyright: ignore[reportArgumentType]

    with begin(world) as saga:
        before = saga.row().seen_at
        monkeypatch.setattr(sagas, "touch", fail_twice)
        end = time.monotonic() + _PATIENCE_SECONDS
        while saga.row().seen_at == before and time.monotonic() < end:
            time.sleep(0.01)
        assert saga.row().seen_at > before


def test_a_saga_of_a_batch_job_completes_without_a_publication(world: World) -> None:
    before = world.head
    with Saga.begin(world.corpus, SagaKind.BATCH, base_version=before) as saga:
        saga.complete()
    row = saga.row()
    assert (row.state, row.error, row.published_version, row.ended_at is None) == ("completed", None, None, False)
    assert recover(world.corpus, silence=0).abandoned == []
    world.sweep()
    assert (saga.row().state, world.head) == ("completed", before)


def test_completing_changes_no_saga_that_has_ended(world: World) -> None:
    with Saga.begin(world.corpus, SagaKind.BATCH, base_version=world.head) as saga:
        assert recover(world.corpus, silence=0).abandoned == [saga.id]
        saga.complete()
    assert saga.row().state == "abandoned"


@pytest.mark.parametrize("state", ["preparing", "prepared", "failed", "abandoned", "compensated", "adopted"])
def test_a_completed_saga_stays_completed(world: World, state: str) -> None:
    with Saga.begin(world.corpus, SagaKind.BATCH, base_version=world.head) as saga:
        saga.complete()
    with pytest.raises(CheckViolation, match="cannot move from completed"), world.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.saga SET state = %s WHERE id = %s", (state, saga.id))
    with world.database.transaction() as connection:
        sagas.adopt(connection, world.corpus.generation, [saga.id], "for the test")
    assert saga.row().state == "completed"


def test_only_the_unprepared_saga_of_a_batch_job_completes(world: World) -> None:
    with pytest.raises(CheckViolation, match="saga_check"), begin(world) as saga:
        saga.complete()
    with Saga.begin(world.corpus, SagaKind.BATCH, base_version=world.head) as saga:
        saga.prepared()
        saga.complete()
        assert saga.row().state == "prepared"
        with pytest.raises(CheckViolation, match="cannot move"), world.database.transaction() as connection:
            connection.execute("UPDATE ingest_pipeline.saga SET state = 'completed' WHERE id = %s", (saga.id,))
        saga.fail("for the test")


def test_an_error_marks_the_saga_as_failed_and_deletes_its_planned_rows(world: World) -> None:
    with pytest.raises(LookupError), begin(world) as saga:
        plan_a_document(world, saga)
        assert planned_rows(world, saga) == 1
        raise LookupError("no such thing")
    row = saga.row()
    assert (row.state, row.error) == ("failed", "LookupError: no such thing")
    assert planned_rows(world, saga) == 0


def test_an_error_does_not_change_an_outcome_that_recovery_decided(world: World) -> None:
    with pytest.raises(FencedError), begin(world) as saga:
        assert recover(world.corpus, silence=0).abandoned == [saga.id]
        saga.prepared()
    assert saga.row().state == "abandoned"


def test_a_saga_that_cannot_be_marked_as_failed_is_left_to_recovery(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unavailable(*_: object) -> None:
        raise UnavailableError("Postgres does not answer")

    with caplog.at_level(logging.WARNING), pytest.raises(LookupError) as caught, begin(world) as saga:
        monkeypatch.setattr(Database, "transaction", unavailable)
        raise LookupError("no such thing")
    monkeypatch.undo()
    assert any("recovery will end it" in note for note in caught.value.__notes__)
    assert f"Saga {saga.id} could not be marked as failed" in caplog.text
    assert saga.row().state == "preparing"
    assert recover(world.corpus, silence=0).abandoned == [saga.id]
