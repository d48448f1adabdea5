"""One lock, one Lance commit, one COMMIT: what keeps two publications from becoming one mixture."""

# ruff: noqa: PT012  what raises is the end of a transaction's block, so the block has to stand inside

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NoReturn

import lance
import psycopg
import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.corpus.saga_timeouts import ATTEMPTS
from ingest_pipeline.errors import ForeignWriteError, UnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.lance.changes import Change
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.manifests import CommitRefusedError
from ingest_pipeline.postgres.database import Database, DatabaseConflictError
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.reconcile import check_version, lock
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.saga.transaction import Transaction, transaction
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.crash.tables import SCHEMA, rows_of
from tests.support.world import mark


@pytest.fixture
def settings(tmp_path: Path) -> CorpusSettings:
    return CorpusSettings("prices", str(tmp_path / "prices.lance"), SCHEMA)


@pytest.fixture
def corpus(database: Database, settings: CorpusSettings) -> Corpus:
    opened = open_corpus(database, settings)
    add(opened, "first")
    return opened


def add(corpus: Corpus, *ids: str) -> None:
    with transaction(corpus) as change:
        change.add(rows_of(ids))


def ids_at_head(corpus: Corpus) -> list[str]:
    return sorted(corpus.table.rows(corpus.head().head_version, ["id"])["id"].to_pylist())


def somebody_waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(waiting).fetchone() is not None


@pytest.mark.promise("many-writers")
def test_a_publication_waits_for_the_holder_of_the_lock(corpus: Corpus) -> None:
    writer = threading.Thread(target=add, args=(corpus, "second"))
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        writer.start()
        while writer.is_alive() and not somebody_waits_for_a_lock(corpus.database.url):
            time.sleep(0.005)
        assert writer.is_alive()
        assert ids_at_head(corpus) == ["first"]
    writer.join()
    assert ids_at_head(corpus) == ["first", "second"]


def test_preparing_does_not_wait_for_the_lock(corpus: Corpus) -> None:
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        with corpus.database.transaction() as other:
            other.execute("SET LOCAL lock_timeout = '5s'")
            saga = sagas.begin(other, generation=corpus.generation, kind=SagaKind.INGEST, base_version=1)
            sagas.record_fragment(other, saga, name="a", row_count=1)


@pytest.mark.promise("many-writers")
def test_a_version_that_is_staged_on_an_old_head_is_refused(corpus: Corpus) -> None:
    old, saga = corpus.head().head_version, corpus.head().head_saga
    add(corpus, "second")
    made = corpus.table.stage_version(old, Change(()), mark(corpus, saga))
    with pytest.raises(CommitRefusedError):
        check_version(corpus, made.number, old + 1)


def test_a_version_that_is_staged_before_a_restore_is_refused(corpus: Corpus) -> None:
    old, ours = corpus.head().head_version, mark(corpus, corpus.head().head_saga)
    restored = corpus.table.stage_restore(1, ours)
    staged = corpus.table.stage(f"{ours.saga}-9.lance", rows_of(["late"]))
    assert corpus.table.install(restored.number, restored.manifest, ours.saga)
    with pytest.raises(CommitRefusedError):
        corpus.table.stage_version(old, Change([staged]), ours)


@pytest.mark.promise("foreign-writes")
def test_a_foreign_write_during_a_publication_is_kept_and_reported(
    database: Database, settings: CorpusSettings
) -> None:
    corpus = open_corpus(database, settings)

    def interfere(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.LANCE_COMMIT, "before"):
            failpoints.install(None)
            lance.write_dataset(rows_of(["theirs"]), settings.table_uri, mode="append")

    failpoints.install(interfere)
    with pytest.raises(ForeignWriteError):
        add(corpus, "ours")
    assert ids_at_head(corpus) == []
    latest = corpus.table.latest_version()
    assert corpus.table.rows(latest, ["id"])["id"].to_pylist() == ["theirs"], "what they wrote is the latest again"
    with pytest.raises(ForeignWriteError):
        recover(corpus)
    recover(corpus, foreign="restore")
    add(corpus, "ours")
    assert ids_at_head(corpus) == ["ours"]


def test_a_deadlock_before_lance_was_touched_is_tried_again(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [1, 2]
    write = Transaction.write

    def deadlock(change: Transaction, *arguments: object) -> object:
        if left:
            left.pop()
            raise DatabaseConflictError("deadlock")
        return write(change, *arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  passed on

    monkeypatch.setattr(Transaction, "write", deadlock)
    add(corpus, "second")
    assert ids_at_head(corpus) == ["first", "second"]


def test_attempts_to_publish_end_after_a_while(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise CommitRefusedError("taken")

    monkeypatch.setattr(LanceTable, "stage_version", refuse)
    with pytest.raises(UnavailableError, match=f"{ATTEMPTS} attempts"):
        add(corpus, "second")
    assert ids_at_head(corpus) == ["first"]


@pytest.mark.promise("zombies")
def test_a_writer_that_holds_the_lock_for_too_long_is_ended_by_postgres(
    corpus: Corpus, settings: CorpusSettings
) -> None:
    """A paused writer inside its transaction must not stop the corpus for ever."""
    with pytest.raises(UnavailableError), corpus.database.transaction() as connection:
        lock(connection, corpus)
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
        outcome = Child(crash_jobs.add_rows, corpus.database.url, settings, ["second"]).outcome()
        assert outcome.error is None
        connection.execute("SELECT 1")
    assert ids_at_head(corpus) == ["first", "second"]
