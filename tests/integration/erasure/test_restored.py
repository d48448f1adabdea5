"""A backup from before an erasure is restored: the other store remembers, and a recovery erases again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.erasure.unfinished import continue_erasures, has_erasures
from ingest_pipeline.errors import TableUnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import rebuild_catalog
from tests.support.servers.databases import copy_of
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("erasure")

PERSON = "Wilhelmina Zanzibarova lives at 12 Quince Street"


def fill(world: World) -> None:
    world.put("a.txt", PERSON)
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()


def check_erased(world: World) -> None:
    assert set(world.texts()) == {"b.txt"}
    files = [path for path in Path(world.corpus.table.uri).rglob("*") if path.is_file()]
    assert not any(PERSON.encode() in path.read_bytes() for path in files)
    with world.database.transaction() as connection:
        names = erasures.tables_of(connection, "ingest_pipeline")
        rows = [row for name in names for row in erasures.rows_as_text(connection, "ingest_pipeline", name)]
    assert [row for row in rows if "a.txt" in row] == []
    assert world.ingest().publications == []
    world.check_nothing_left()
    assert continue_erasures(world.corpus, compare_keys=True) == []


def test_an_older_database_learns_of_the_erasure_from_the_folder_of_the_table(world: World, postgres: str) -> None:
    fill(world)
    world.database.close()
    url = copy_of(postgres, world.database.url)
    world.database.open()
    erase(world.corpus, ["a.txt"], reason="a request")
    with Database(url) as database:
        restored = World(database, world.settings, world.embeddings)
        rebuild_catalog(open_for_rebuild(database, world.settings))
        with database.transaction() as connection:
            assert erasures.read(connection, "docs") == []
        assert has_erasures(restored.corpus)
        [receipt] = continue_erasures(restored.corpus)
        assert (receipt.found, receipt.reason) == (0, "a request")
        check_erased(restored)


def test_an_older_table_is_erased_again_because_the_ledger_remembers(world: World, tmp_path: Path) -> None:
    fill(world)
    table, kept = Path(world.settings.table_uri), tmp_path / "backup"
    shutil.copytree(table, kept)
    erase(world.corpus, ["a.txt"], reason="a request")
    shutil.rmtree(table)
    shutil.copytree(kept, table)
    restored = World(world.database, world.settings, world.embeddings)
    rebuild_catalog(open_for_rebuild(world.database, world.settings))
    assert set(restored.texts()) == {"a.txt", "b.txt"}
    [receipt] = continue_erasures(restored.corpus)
    assert receipt.found == 0
    check_erased(restored)


def test_what_came_back_beside_the_note_is_found_by_a_recovery_of_the_user(world: World, tmp_path: Path) -> None:
    """The backup was copied over the present folder, so the note is still there."""
    fill(world)
    table, kept = Path(world.settings.table_uri), tmp_path / "backup"
    shutil.copytree(table, kept)
    erase(world.corpus, ["a.txt"], reason="a request")
    shutil.copytree(kept, table, dirs_exist_ok=True)
    restored = World(world.database, world.settings, world.embeddings)
    assert continue_erasures(restored.corpus) == []
    [receipt] = continue_erasures(restored.corpus, compare_keys=True)
    assert receipt.found == 0
    check_erased(restored)


def test_an_attempt_that_failed_is_continued_although_its_process_lives_on(world: World) -> None:
    """As in a code server: a sensor began the erasure, and a store was down."""
    fill(world)

    def fail(passed: Boundary, side: str) -> None:
        if (passed, side) == (Boundary.VERSIONS_REMOVED, "before"):
            assert continue_erasures(world.corpus) == [], "it is performed now"
            raise TableUnavailableError("The store is down")

    failpoints.install(fail)
    try:
        with pytest.raises(TableUnavailableError):
            erase(world.corpus, ["a.txt"], reason="a request")
    finally:
        failpoints.install(None)
    [receipt] = continue_erasures(world.corpus)
    assert receipt.found == 0
    check_erased(world)
