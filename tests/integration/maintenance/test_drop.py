"""Deleting a corpus: nothing of it is left, nothing else is touched, and its name can be used anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.maintenance.drop import drop_corpus
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.saga.generations import drop_retired
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.migrating import address_after, migrate
from tests.support.crash.places import DROP_CORPUS, decisive_places
from tests.support.servers.databases import copy_of, empty_database
from tests.support.world import World, paragraphs, passages_of

_TABLES = ("document", "chunk", "saga", "hold", "failure", "staged_fragment", "embedded_batch", "retired_publication")


def again(world: World) -> World:
    """The same settings, opened anew."""
    return World(world.database, world.settings, world.embeddings)


def rows(database: Database) -> dict[str, int]:
    """Rows of each table of the ledger and the catalog that has any."""
    with database.transaction() as connection:
        found = {
            name: connection.execute(f"SELECT count(*) AS n FROM ingest_pipeline.{name}").fetchone()  # noqa: S608
            for name in _TABLES
        }
    return {name: row["n"] for name, row in found.items() if row is not None and row["n"]}


def fill(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("bad.txt", "\0\0\0")
    world.ingest()
    first = world.head
    world.put("a.txt", paragraphs("beta", 2))
    world.ingest()
    world.roll_back(first)


def test_a_dropped_corpus_leaves_nothing_and_its_name_can_be_used_again(world: World) -> None:
    fill(world)
    dropped = drop_corpus(world.database, "docs")
    assert dropped.documents == 1
    assert rows(world.database) == {}
    assert list(Path(world.settings.lancedb_uri).iterdir()) == []
    anew = again(world)
    anew.ingest()
    assert anew.texts().keys() == {"a.txt"}
    assert anew.corpus.head().table_uri.endswith("/docs-2.lance")
    anew.check_nothing_left()


def test_both_tables_of_a_corpus_in_reembedding_are_dropped(world: World) -> None:
    fill(world)
    migrate(world.database, address_after(world), then_switch=False)
    assert len(drop_corpus(world.database, "docs").tables) == 2
    assert rows(world.database) == {}
    assert list(Path(world.settings.lancedb_uri).iterdir()) == []


@pytest.mark.promise("moved-or-dropped")
def test_a_drop_touches_no_other_corpus(world: World) -> None:
    fill(world)
    other = World(world.database, world.settings.replace(corpus="other"), world.embeddings)
    other.ingest()
    before = other.texts()
    drop_corpus(world.database, "docs")
    assert other.texts() == before
    other.check_nothing_left()
    with pytest.raises(ConfigurationError, match="There is no corpus 'ghost'"):
        drop_corpus(world.database, "ghost")


@pytest.mark.promise("moved-or-dropped")
def test_a_table_of_another_database_is_not_touched(world: World, postgres: str, entrance: str) -> None:
    fill(world)
    shutil.rmtree(world.corpus.table.uri)
    with Database(empty_database(postgres, entrance)) as database:
        theirs = World(database, world.settings, world.embeddings)
        theirs.ingest()
        dropped = drop_corpus(world.database, "docs")
        assert (dropped.tables, dropped.kept) == ([], [theirs.corpus.table.uri])
        assert theirs.texts().keys() == {"a.txt"}
        theirs.check()
        elsewhere = world.settings.replace(lancedb_uri=f"{world.settings.lancedb_uri}-2")
        drop_retired(open_context(world.database, elsewhere).corpus)
        assert theirs.texts().keys() == {"a.txt"}


def test_a_copy_of_the_database_deletes_no_table(world: World, postgres: str) -> None:
    fill(world)
    uri = world.corpus.table.uri
    world.database.close()
    with Database(copy_of(postgres, world.database.url)) as copy:
        dropped = drop_corpus(copy, "docs")
        assert (dropped.tables, dropped.kept, rows(copy)) == ([], [uri], {})
    world.database.open()
    assert again(world).texts().keys() == {"a.txt"}
    again(world).check()


@pytest.mark.promise("moved-or-dropped")
@pytest.mark.parametrize(
    "place",
    [
        Place(Boundary.BATCH_RECORDED, "before"),
        Place(Boundary.FRAGMENT_RECORDED, "before"),
        Place(Boundary.PREPARED, "before"),
        Place(Boundary.PREPARED, "after"),
    ],
    ids=str,
)
def test_a_living_writer_of_a_dropped_corpus_is_fenced(world: World, place: Place) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    assert world.corpus
    writer = Child(crash_jobs.ingest, world.address, stop_at=place)
    assert writer.wait_until_stopped()
    drop_corpus(world.database, "docs")
    writer.resume()
    outcome = writer.outcome()
    assert outcome.error in ("FencedError", "GenerationRetiredError"), outcome
    drop_corpus(world.database, "docs")
    assert rows(world.database) == {}


@pytest.mark.promise("moved-or-dropped")
@pytest.mark.parametrize("place", decisive_places(DROP_CORPUS), ids=str)
def test_a_drop_may_die_anywhere(world: World, place: Place) -> None:
    """What is left is the corpus, whole, or a drop that the next one ends."""
    fill(world)
    assert Child(crash_jobs.drop_corpus, world.database.url, "docs", kill_at=place).outcome().killed
    if world.corpus.head().state == "current":
        world.check()
    drop_corpus(world.database, "docs")
    assert rows(world.database) == {}
    assert list(Path(world.settings.lancedb_uri).iterdir()) == []


def test_the_places_of_a_drop_are_complete(world: World) -> None:
    fill(world)
    passed = passages_of(lambda: drop_corpus(world.database, "docs"))
    assert {name for name, _ in passed} == set(DROP_CORPUS)
    assert all(count <= DROP_CORPUS[name] for (name, _), count in passed.items()), passed


def test_an_empty_folder_after_a_drop_that_died_is_no_table(world: World) -> None:
    fill(world)
    drop_corpus(world.database, "docs")
    assert not LanceTable(f"{world.settings.lancedb_uri}/docs.lance").exists()
    assert drop_corpus(world.database, "docs").documents == 0
