"""A versioned transaction on a user's own table: rows and SQL together, or neither."""

# ruff: noqa: PT012  what raises is the end of a transaction's block, so the block has to stand inside

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest

from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    TableUnavailableError,
    UnavailableError,
)
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.sweep import orphans, sweep
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga import heartbeat
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.saga.transaction import transaction
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.crash.tables import SCHEMA, rows_of

pytestmark = pytest.mark.promise("own-table")

_PATIENCE_SECONDS = 300.0


@pytest.fixture
def settings(tmp_path: Path) -> CorpusSettings:
    return CorpusSettings("prices", str(tmp_path / "prices.lance"), SCHEMA)


@pytest.fixture
def corpus(database: Database, settings: CorpusSettings) -> Corpus:
    with database.transaction() as connection:
        connection.execute("CREATE TABLE change (sku text PRIMARY KEY)")
    return open_corpus(database, settings)


def ids_at_head(corpus: Corpus) -> list[str]:
    return sorted(corpus.table.rows(corpus.head().head_version, ["id"])["id"].to_pylist())


def noted(corpus: Corpus) -> list[str]:
    with corpus.database.transaction() as connection:
        return [row["sku"] for row in connection.execute("SELECT sku FROM change ORDER BY sku")]


def add(corpus: Corpus, *ids: str) -> None:
    with transaction(corpus) as change:
        change.add(rows_of(ids))


def check_untouched(corpus: Corpus, head: int) -> None:
    """Nothing was published, nothing is half, and after a sweep nothing is left."""
    assert corpus.table.latest_version() == corpus.head().head_version
    assert corpus.table.rows(corpus.head().head_version, ["id"]) == corpus.table.rows(head, ["id"])
    assert noted(corpus) == []
    sweep(corpus)
    assert orphans(corpus) == []
    with corpus.database.transaction() as connection:
        assert sagas.unfinished(connection, corpus.generation) == []


def test_rows_and_statements_are_published_together(corpus: Corpus) -> None:
    with transaction(corpus) as change:
        change.add(rows_of(["a", "b"]))
        change.execute("INSERT INTO change (sku) VALUES (%s)", ("a",))
        assert (ids_at_head(corpus), noted(corpus)) == ([], [])
    assert (ids_at_head(corpus), noted(corpus)) == (["a", "b"], ["a"])
    assert change.published_version == corpus.head().head_version == change.base_version + 1


def test_a_deletion_removes_rows_of_the_base_but_not_added_ones(corpus: Corpus) -> None:
    add(corpus, "a", "b")
    with transaction(corpus) as change:
        change.add(rows_of(["a"]))
        change.delete("id = 'a'")
        change.delete("id = 'nobody''s'")
        assert change.dataset.count_rows() == 2
    assert ids_at_head(corpus) == ["a", "b"]
    with transaction(corpus) as change:
        change.delete("id = 'a'")
        change.delete("id = 'b'")
    assert ids_at_head(corpus) == []


def test_statements_alone_are_a_publication(corpus: Corpus) -> None:
    with transaction(corpus) as change:
        change.execute("INSERT INTO change (sku) VALUES ('x')")
    assert (noted(corpus), ids_at_head(corpus)) == (["x"], [])


def test_an_exception_in_the_block_publishes_nothing(corpus: Corpus) -> None:
    add(corpus, "a")
    head = corpus.head().head_version
    with pytest.raises(KeyError), transaction(corpus) as change:
        change.add(rows_of(["b"]))
        change.execute("INSERT INTO change (sku) VALUES ('b')")
        raise KeyError
    assert change.published_version is None
    check_untouched(corpus, head)


def test_a_failing_statement_publishes_nothing(corpus: Corpus) -> None:
    add(corpus, "a")
    head = corpus.head().head_version
    with pytest.raises(psycopg.errors.UniqueViolation), transaction(corpus) as change:
        change.add(rows_of(["b"]))
        change.execute("INSERT INTO change (sku) VALUES ('b'), ('b')")
    check_untouched(corpus, head)


def test_a_constraint_that_fails_at_commit_undoes_the_rows(corpus: Corpus) -> None:
    with corpus.database.transaction() as connection:
        connection.execute("CREATE TABLE pair (sku text REFERENCES change DEFERRABLE INITIALLY DEFERRED)")
    add(corpus, "a")
    head = corpus.head().head_version
    with pytest.raises(psycopg.errors.ForeignKeyViolation), transaction(corpus) as change:
        change.add(rows_of(["b"]))
        change.execute("INSERT INTO pair VALUES ('absent')")
    assert corpus.head().head_version == head == corpus.table.latest_version()
    check_untouched(corpus, head)


def test_a_filter_that_lance_refuses_publishes_nothing(corpus: Corpus) -> None:
    add(corpus, "a")
    head = corpus.head().head_version
    with pytest.raises(ConfigurationError), transaction(corpus) as change:
        change.execute("INSERT INTO change (sku) VALUES ('b')")
        change.delete("no_such_column = 1")
    check_untouched(corpus, head)


def test_a_commit_that_lance_fails_publishes_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    add(corpus, "a")
    head = corpus.head().head_version

    def fail(*_: object) -> int:
        raise TableUnavailableError("No space left on device")

    with pytest.raises(UnavailableError, match="No space left"), monkeypatch.context() as patch:
        patch.setattr(LanceTable, "stage_version", fail)
        with transaction(corpus) as change:
            change.add(rows_of(["b"]))
            change.execute("INSERT INTO change (sku) VALUES ('b')")
    check_untouched(corpus, head)


def test_a_head_that_moved_is_a_conflict(corpus: Corpus) -> None:
    with pytest.raises(ConflictError), transaction(corpus) as change:
        change.add(rows_of(["late"]))
        change.execute("INSERT INTO change (sku) VALUES ('late')")
        add(corpus, "early")
    check_untouched(corpus, corpus.head().head_version)
    assert ids_at_head(corpus) == ["early"]


def test_two_concurrent_processes_both_publish_or_one_gets_a_conflict(corpus: Corpus, settings: CorpusSettings) -> None:
    url = corpus.database.url
    children = [Child(crash_jobs.add_rows, url, settings, [f"{number}-{uuid4()}"]) for number in range(4)]
    outcomes = [child.outcome() for child in children]
    published = [outcome.result for outcome in outcomes if outcome.error is None]
    assert {outcome.error for outcome in outcomes} <= {None, "ConflictError"}
    assert len(set(published)) == len(published) == len(ids_at_head(corpus)) >= 1
    assert corpus.table.latest_version() == corpus.head().head_version == max(published)


def _seen_lately(corpus: Corpus) -> bool:
    """Whether all running sagas had a heartbeat within the last half hour."""
    with corpus.database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM ingest_pipeline.saga "
            "WHERE ended_at IS NULL AND seen_at < now() - interval '30 minutes'"
        ).fetchone()
    return row == {"n": 0}


def test_a_long_block_renews_its_heartbeat(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    with transaction(corpus) as change:
        change.add(rows_of(["a"]))
        with corpus.database.transaction() as connection:
            connection.execute("UPDATE ingest_pipeline.saga SET seen_at = now() - interval '1 hour'")
        end = time.monotonic() + _PATIENCE_SECONDS
        while not _seen_lately(corpus):
            assert time.monotonic() < end, "the heartbeat is not renewed"
            time.sleep(0.01)
        assert recover(corpus, silence=1800).abandoned == []
    assert ids_at_head(corpus) == ["a"]


def test_a_writer_taken_for_dead_cannot_publish(corpus: Corpus) -> None:
    with pytest.raises(FencedError), transaction(corpus) as change:
        change.add(rows_of(["a"]))
        assert recover(corpus, silence=0).abandoned == [change.saga]
    check_untouched(corpus, corpus.head().head_version)


def test_a_writer_taken_for_dead_cannot_stage(corpus: Corpus) -> None:
    with pytest.raises(FencedError), transaction(corpus) as change:
        recover(corpus, silence=0)
        change.add(rows_of(["a"]))
    check_untouched(corpus, corpus.head().head_version)


@pytest.mark.parametrize("said", ["bad sku a\0b", "half a character: \ud800"])
def test_an_error_with_text_that_postgres_cannot_store_ends_the_saga(corpus: Corpus, said: str) -> None:
    with pytest.raises(LookupError), transaction(corpus):
        raise LookupError(said)
    check_untouched(corpus, corpus.head().head_version)


@pytest.mark.parametrize("predicate", ["id === 'a'", "nothing = 1", ""])
def test_a_filter_that_cannot_be_read_is_refused_at_once(corpus: Corpus, predicate: str) -> None:
    with pytest.raises(ConfigurationError, match="Correct it"), transaction(corpus) as change:
        change.delete(predicate)
    check_untouched(corpus, corpus.head().head_version)


def test_a_statement_that_ends_the_transaction_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigurationError, match="ended the publication's transaction"), transaction(corpus) as change:
        change.add(rows_of(["a"]))
        change.execute("ROLLBACK")
    check_untouched(corpus, corpus.head().head_version)


def test_rows_may_come_with_their_columns_in_any_order(corpus: Corpus) -> None:
    rows = rows_of(["a"])
    with transaction(corpus) as change:
        change.add(rows.select(rows.column_names[::-1]))
    assert ids_at_head(corpus) == ["a"]


def test_rows_that_do_not_fit_the_table_are_refused(corpus: Corpus) -> None:
    rows = rows_of(["a"])
    unfit = [
        rows.append_column("more", pa.array(["x"])),
        rows.drop_columns(["id"]),
        rows.set_column(rows.column_names.index("id"), "id", pa.array([None], pa.string())),
        rows.set_column(rows.column_names.index("id"), "id", pa.array([["a"]])),
    ]
    for wrong in unfit:
        with pytest.raises(ConfigurationError, match="Correct it"), transaction(corpus) as change:
            change.add(wrong)
    check_untouched(corpus, corpus.head().head_version)
