"""What others left behind is settled, and what is not ours is destroyed only on the user's command."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import lance
import pyarrow as pa
import pytest

from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.errors import ForeignWriteError
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.saga.transaction import transaction
from tests.support.world import World, commit_above, mark, paragraphs

ALTERATIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "added": (lambda table: table.add_columns(pa.schema([pa.field("note", pa.string())])), "column 'note' was added"),
    "computed": (lambda table: table.add_columns({"length": "length(text)"}), "column 'length' was added"),
    "dropped": (lambda table: table.drop_columns(["ordinal"]), "column 'ordinal' is missing"),
    "renamed": (
        lambda table: table.alter_columns({"path": "ordinal", "name": "place"}),
        "column 'ordinal' is missing",
    ),
    "retyped": (
        lambda table: table.alter_columns({"path": "text", "data_type": pa.large_string()}),
        "column 'text' is large_string instead of string",
    ),
    "nullable": (lambda table: table.alter_columns({"path": "text", "nullable": True}), "column 'text' may be null"),
    "overwritten": (
        lambda table: lance.write_dataset(table.to_table().replace_schema_metadata(None), table.uri, mode="overwrite"),
        "it lacks the mark of the corpus",
    ),
}
"""What something else may do to the columns of a table, and what the refusal to adopt it says."""


@pytest.fixture
def world(world: World) -> World:
    for number in range(3):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 2))
        world.ingest()
    return world


def begin(world: World, run_id: str | None = None) -> UUID:
    with world.database.transaction() as connection:
        return sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head, run_id=run_id
        )


def their_table(world: World) -> lance.LanceDataset:
    return lance.dataset(world.settings.table_uri)


@pytest.mark.promise("settled")
def test_a_living_writer_is_not_recovered_and_a_silent_one_is(world: World) -> None:
    saga = begin(world)
    assert recover(world.corpus).abandoned == []
    with world.database.transaction() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.saga SET seen_at = now() - interval '1 minute' WHERE id = %s", (saga,)
        )
    assert recover(world.corpus).abandoned == [saga]
    assert recover(world.corpus).abandoned == []


@pytest.mark.promise("settled")
def test_a_run_that_is_known_to_be_dead_is_settled_at_once(world: World) -> None:
    saga, other = begin(world, "dead"), begin(world, "alive")
    assert recover(world.corpus, dead_runs=["dead"]).abandoned == [saga]
    with world.database.transaction() as connection:
        assert sagas.live_sagas(connection, world.corpus.generation) == {other}


@pytest.mark.promise("waits")
def test_a_writer_that_locks_its_saga_is_skipped_and_settled_later(world: World) -> None:
    """One that was stopped in mid transaction must not stop who recovers, nor with it the whole corpus."""
    held, free = begin(world), begin(world)
    with world.database.transaction() as writer:
        sagas.touch(writer, held)
        assert world.recover().abandoned == [free]
        world.put("new.txt", paragraphs("new", 1))
        world.ingest()
    assert world.recover().abandoned == [held]


def test_versions_of_several_dead_writers_are_undone_together(world: World) -> None:
    before = world.texts()
    dead = [begin(world), begin(world)]
    with world.database.transaction() as connection:
        for saga in dead:
            sagas.mark_prepared(connection, saga)
    for saga in dead:
        commit_above(
            world.corpus.table,
            world.corpus.table.latest_version(),
            Change((), Removal("ordinal = 0")),
            mark(world.corpus, saga),
        )
    report = world.recover()
    assert sorted(report.compensated) == sorted(dead)
    assert (report.head_before + 3, world.texts()) == (report.head_after, before)
    world.check_nothing_left()


@pytest.mark.promise("foreign-writes")
def test_a_foreign_version_is_always_reported_and_never_destroyed(world: World) -> None:
    their_table(world).delete("document = '0.txt'")
    theirs = world.corpus.table.latest_version()
    world.put("new.txt", paragraphs("new", 1))
    for action in (world.recover, world.ingest, world.sweep):
        with pytest.raises(ForeignWriteError, match=f"Version {theirs} "):
            action()
    assert world.corpus.table.latest_version() == theirs
    assert "0.txt" in world.texts()


def test_a_foreign_deletion_can_be_undone(world: World) -> None:
    before = world.texts()
    their_table(world).delete("document = '0.txt'")
    recover(world.corpus, foreign="restore")
    assert world.texts() == before == world.texts(world.corpus.table.latest_version())
    world.check_nothing_left()


@pytest.mark.promise("foreign-writes")
@pytest.mark.parametrize("change", ["delete", "append", "update"])
def test_a_foreign_change_of_rows_cannot_be_adopted(world: World, change: str) -> None:
    table = their_table(world)
    if change == "delete":
        table.delete("document = '0.txt'")
    elif change == "append":
        lance.write_dataset(table.to_table().slice(0, 1), world.settings.table_uri, mode="append")
    else:
        table.update({"text": "'forged'"}, "document = '0.txt'")
    theirs = world.corpus.table.latest_version()
    with pytest.raises(ForeignWriteError):
        recover(world.corpus, foreign="adopt")
    assert world.corpus.table.latest_version() == theirs


@pytest.mark.promise("foreign-writes")
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_foreign_change_of_columns_cannot_be_adopted(world: World, alteration: str) -> None:
    """Lance would refuse every data file that is written for the columns of head."""
    alter, named = ALTERATIONS[alteration]
    alter(their_table(world))
    head, theirs = world.head, world.corpus.table.latest_version()
    with pytest.raises(ForeignWriteError, match=re.escape(named)) as refused:
        recover(world.corpus, foreign="adopt")
    assert "recover --restore" in str(refused.value)
    assert (world.head, world.corpus.table.latest_version()) == (head, theirs)
    recover(world.corpus, foreign="restore")
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    world.check_nothing_left()


def test_a_column_added_to_a_users_own_table_can_be_adopted(database: Database, tmp_path: Path) -> None:
    schema = pa.schema([pa.field("sku", pa.string(), nullable=False)])
    settings = CorpusSettings("prices", str(tmp_path / "prices.lance"), schema)
    with transaction(open_corpus(database, settings)) as change:
        change.add(pa.table({"sku": ["A-1"]}))
    lance.dataset(settings.table_uri).add_columns(pa.schema([pa.field("note", pa.string())]))
    recover(open_corpus(database, settings), foreign="adopt")
    corpus = open_corpus(database, settings)
    with transaction(corpus) as change:
        change.add(pa.table({"sku": ["B-2"], "note": ["new"]}))
    assert corpus.table.at(corpus.head().head_version).to_table().to_pylist() == [
        {"sku": "A-1", "note": None},
        {"sku": "B-2", "note": "new"},
    ]


def test_a_foreign_compaction_can_be_adopted(world: World) -> None:
    before = world.texts()
    their_table(world).optimize.compact_files()
    report = recover(world.corpus, foreign="adopt")
    assert report.head_after == world.corpus.table.latest_version() > report.head_before
    assert world.texts() == before
    assert len(world.corpus.table.at(world.head).get_fragments()) == 1
    world.check_nothing_left()


def test_documents_are_replaced_after_a_foreign_compaction_moved_their_rows(world: World) -> None:
    their_table(world).optimize.compact_files()
    recover(world.corpus, foreign="adopt")
    world.put("1.txt", paragraphs("changed", 3))
    world.remove("2.txt")
    world.ingest()
    assert sorted(world.texts()) == ["0.txt", "1.txt"]
    world.check_nothing_left()


def test_adopting_excludes_dead_sagas_on_top_of_a_foreign_version(world: World) -> None:
    before = world.texts()
    their_table(world).optimize.compact_files()
    dead = begin(world)
    commit_above(
        world.corpus.table,
        world.corpus.table.latest_version(),
        Change((), Removal("document = '0.txt'")),
        mark(world.corpus, dead),
    )
    recover(world.corpus, foreign="adopt")
    assert world.texts() == before
    assert len(world.corpus.table.at(world.head).get_fragments()) == 1


def test_adopting_without_a_foreign_version_changes_nothing(world: World) -> None:
    before = world.head
    recover(world.corpus, foreign="adopt")
    recover(world.corpus, foreign="restore")
    assert world.head == before
