"""Databases that were lost, set back or copied: the catalog comes back from the table, and nothing is embedded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import lance
import pytest

from ingest_pipeline.errors import (
    ConfigurationError,
    ConflictError,
    CorpusMismatchError,
    OtherDatabaseError,
    RollbackRefusedError,
)
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.postgres.catalog import corpora, prepared_documents
from ingest_pipeline.postgres.catalog.history import publication_history
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.binaries import ServerAccount, find_binaries
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import RebuildReport, rebuild_catalog
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.types import Retention
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import REBUILD, decisive_places, places
from tests.support.servers.databases import copy_of, empty_database
from tests.support.world import World, commit_above, mark, paragraphs, passages_of


@pytest.fixture
def world(world: World) -> World:
    for number in range(4):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 3))
    world.ingest()
    return world


@pytest.fixture
def backup(world: World, postgres: str) -> Callable[[], str]:
    """Copies the database as it is now; returns the url of the copy."""

    def take() -> str:
        world.database.close()
        url = copy_of(postgres, world.database.url)
        world.database.open()
        return url

    return take


@pytest.fixture
def opened() -> Generator[Callable[[World, str], World]]:
    """Opens the corpus of a world by another database."""
    databases: list[Database] = []

    def reopen(world: World, url: str) -> World:
        databases.append(Database(url).open())
        return World(databases[-1], world.settings, world.embeddings)

    yield reopen
    for database in databases:
        database.close()


def rebuild(world: World) -> RebuildReport | None:
    return rebuild_catalog(open_for_rebuild(world.database, world.settings))


def check_rebuilt(world: World, texts: dict[str, str], *, embedded: int) -> None:
    """Both stores hold the texts and nothing else; the next ingest finds nothing to do, and nothing was embedded."""
    assert world.embeddings.embedded == embedded
    assert world.texts() == texts
    world.check_nothing_left()
    assert world.audit().unknown_files == 0
    head = world.head
    assert world.ingest().publications == []
    assert (world.head, world.embeddings.embedded) == (head, embedded)


def publish_more(world: World) -> None:
    """An edit, a new document, a removal, maintenance, and an edit again, all missing from a backup of an hour ago."""
    world.put("0.txt", paragraphs("topic0", 3) + "\n\nOne sentence more.")
    world.put("new.txt", paragraphs("new", 2))
    world.remove("3.txt")
    world.ingest()
    maintain(world.corpus, Retention(7, 20))
    world.put("1.txt", paragraphs("changed", 2))
    world.ingest()


@pytest.mark.promise("copies-and-rebuilds")
def test_a_database_restored_to_an_hour_ago_is_rebuilt_from_the_table(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World]
) -> None:
    old = backup()
    publish_more(world)
    texts, embedded = world.texts(), world.embeddings.embedded
    restored = opened(world, old)
    with pytest.raises(OtherDatabaseError, match="--rebuild-catalog"):
        restored.ingest()
    report = rebuild(restored)
    assert report is not None
    assert (report.kept, report.added, report.removed) == (1, 3, ["3.txt"])
    assert (report.incomplete, report.changed, report.skipped) == ([], [], [])
    check_rebuilt(restored, texts, embedded=embedded)
    world.put("0.txt", "The database that was replaced must not go on.")
    replaced = World(world.database, world.settings, world.embeddings)
    with pytest.raises(OtherDatabaseError):
        replaced.ingest()


@pytest.mark.promise("copies-and-rebuilds")
def test_a_lost_database_comes_back_from_the_table_alone(
    world: World, postgres: str, entrance: str, opened: Callable[[World, str], World]
) -> None:
    publish_more(world)
    texts, embedded = world.texts(), world.embeddings.embedded
    empty = opened(world, empty_database(postgres, entrance))
    report = rebuild(empty)
    assert report is not None
    assert (report.kept, report.added, report.changed) == (0, 4, [])
    check_rebuilt(empty, texts, embedded=embedded)
    assert empty.database.installation == world.database.installation
    empty.put("0.txt", paragraphs("topic0", 3) + "\n\nAnother sentence.")
    empty.ingest()
    assert empty.embeddings.embedded == embedded + 1, "an edit pays for what it changed, as before"
    empty.check_nothing_left()


@pytest.mark.promise("copies-and-rebuilds")
def test_a_backup_older_than_retention_is_brought_up_to_the_table(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World]
) -> None:
    """The version that it calls head is gone, with files that only that version held."""
    old, head = backup(), world.head
    publish_more(world)
    maintain(world.corpus, Retention(0, 1))
    assert head not in world.corpus.table.versions()
    texts, embedded = world.texts(), world.embeddings.embedded
    restored = opened(world, old)
    with pytest.raises(OtherDatabaseError, match="older than the table's retention"):
        restored.ingest()
    assert rebuild(restored) is not None
    check_rebuilt(restored, texts, embedded=embedded)


@pytest.mark.promise("copies-and-rebuilds")
def test_a_copy_that_was_taken_while_writers_ran_is_brought_to_its_newest_whole_version(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World], tmp_path: Path
) -> None:
    """The database is of an earlier moment than the table's folder, and the folder's last version lacks a file."""
    old = backup()
    world.put("new.txt", paragraphs("new", 2))
    world.ingest()
    whole, texts = world.head, world.texts()
    world.put("late.txt", paragraphs("late", 2))
    world.ingest()
    copied = world.settings.replace(lancedb_uri=str(tmp_path / "elsewhere"))
    shutil.copytree(world.settings.lancedb_uri, copied.lancedb_uri)
    table = world.corpus.table
    [*_, missing] = sorted(name for name in table.files_of(world.head) - table.files_of(whole) if "data/" in name)
    (Path(copied.table_uri) / missing).unlink()
    embedded = world.embeddings.embedded
    elsewhere = World(opened(world, old).database, copied, world.embeddings)
    report = rebuild(elsewhere)
    assert report is not None
    assert (report.content_of, report.skipped) == (whole, [whole + 1])
    assert elsewhere.embeddings.embedded == embedded
    assert elsewhere.texts() == texts
    assert elsewhere.audit().violations == []
    elsewhere.ingest()
    assert elsewhere.embeddings.embedded == embedded + 2, "the rows of the missing file are embedded again"
    assert elsewhere.texts() == world.texts()
    assert elsewhere.audit().violations == []
    assert world.audit().violations == []


def test_an_unreadable_manifest_is_skipped(world: World) -> None:
    texts, whole = world.texts(), world.head
    world.put("late.txt", paragraphs("late", 1))
    world.ingest()
    manifest = Path(world.settings.table_uri) / "_versions" / f"{2**64 - 1 - world.head:020d}.manifest"
    manifest.write_bytes(manifest.read_bytes()[:10])
    again = World(world.database, world.settings, world.embeddings)
    report = rebuild(again)
    assert report is not None
    assert (report.content_of, report.removed) == (whole, ["late.txt"])
    assert again.texts() == texts
    again.check_nothing_left()


def test_a_table_from_an_older_backup_takes_the_catalog_back_to_it(world: World, tmp_path: Path) -> None:
    texts = world.texts()
    shutil.copytree(world.settings.table_uri, tmp_path / "backup")
    publish_more(world)
    head, embedded = world.head, world.embeddings.embedded
    counts = publication_counts(world)
    shutil.rmtree(world.settings.table_uri)
    shutil.copytree(tmp_path / "backup", world.settings.table_uri)
    again = World(world.database, world.settings, world.embeddings)
    report = rebuild(again)
    assert report is not None
    assert report.head_after > head
    assert again.texts() == texts
    again.check_nothing_left()
    assert again.embeddings.embedded == embedded
    with pytest.raises(RollbackRefusedError):
        again.roll_back(head)
    assert publication_counts(again).items() >= counts.items(), "what the missing versions brought"
    again.ingest()
    assert again.texts() == world_texts_of_source(again)
    again.check_nothing_left()


def publication_counts(world: World) -> dict[int, tuple[int, int, int]]:
    """Documents, removals and chunks of each publication, by version."""
    with world.database.transaction() as connection:
        found = publication_history(connection, world.corpus.generation, 100)
    return {row.version: (row.documents, row.removed, row.chunks) for row in found}


def world_texts_of_source(world: World) -> dict[str, str]:
    """What the source holds, as chunks have it: without what separates paragraphs where a chunk ends."""
    return {key: text for key, text in world.texts().items() if (Path(world.settings.source) / key).exists()}


def test_changes_of_the_source_are_left_to_the_next_ingest(
    world: World, postgres: str, entrance: str, opened: Callable[[World, str], World]
) -> None:
    world.put("0.txt", paragraphs("topic0", 3) + "\n\n" + paragraphs("more", 1))
    world.remove("1.txt")
    embedded = world.embeddings.embedded
    empty = opened(world, empty_database(postgres, entrance))
    report = rebuild(empty)
    assert report is not None
    assert (report.added, report.changed) == (4, ["0.txt", "1.txt"])
    empty.ingest()
    assert sorted(empty.texts()) == ["0.txt", "2.txt", "3.txt"]
    assert empty.embeddings.embedded == embedded + 1
    empty.check_nothing_left()


def test_documents_with_inconsistent_rows_are_removed_and_ingested_again(
    world: World, postgres: str, entrance: str, opened: Callable[[World, str], World]
) -> None:
    saga = world.corpus.head().head_saga
    change = Change((), Removal("document = '1.txt' AND ordinal = 1"))
    commit_above(world.corpus.table, world.head, change, mark(world.corpus, saga))
    texts = world.texts()
    empty = opened(world, empty_database(postgres, entrance))
    report = rebuild(empty)
    assert report is not None
    assert report.incomplete == ["1.txt"]
    assert empty.audit().violations == []
    empty.ingest()
    assert empty.texts() == texts
    empty.check_nothing_left()


def test_if_catalog_and_table_agree_nothing_is_changed(world: World) -> None:
    with world.database.transaction() as connection:
        connection.execute(
            "INSERT INTO ingest_pipeline.saga (id, generation, kind, state, base_version, writer) "
            "VALUES ('00000000-0000-0000-0000-000000000009', 'docs', 'ingest', 'prepared', 1, 'gone')"
        )
    dead = mark(world.corpus, UUID(int=9))
    commit_above(world.corpus.table, world.head, Change((), Removal("document = '0.txt'")), dead)
    head, texts = world.head, world.texts()
    assert rebuild(world) is None
    assert (world.head, world.texts()) == (head, texts)
    world.recover()
    assert world.texts() == texts
    world.check_nothing_left()


def test_settings_that_do_not_match_the_table_are_refused(
    world: World, postgres: str, entrance: str, opened: Callable[[World, str], World], tmp_path: Path
) -> None:
    empty = opened(world, empty_database(postgres, entrance))
    (tmp_path / "other").mkdir()
    for change in ({"source": str(tmp_path / "other")}, {"partition_by": "folder"}, {"embedding_model": "another"}):
        with pytest.raises(CorpusMismatchError):
            open_for_rebuild(empty.database, world.settings.replace(**change))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has neither a table"):
        open_for_rebuild(empty.database, world.settings.replace(lancedb_uri=str(tmp_path / "nothing")))
    lance.write_dataset(world.corpus.table.at(world.head).to_table(), str(tmp_path / "theirs" / "docs.lance"))
    with pytest.raises(ConfigurationError):
        open_for_rebuild(empty.database, world.settings.replace(lancedb_uri=str(tmp_path / "theirs")))
    with empty.database.transaction() as connection:
        assert corpora.read_current(connection, "docs") is None


def test_a_source_that_does_not_answer_leaves_everything_as_it_was(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World]
) -> None:
    old = backup()
    publish_more(world)
    restored = opened(world, old)
    shutil.move(world.settings.source, world.settings.source + "-away")
    latest = world.corpus.table.latest_version()
    with pytest.raises(ConfigurationError, match="does not exist"):
        rebuild(restored)
    assert world.corpus.table.latest_version() == latest
    shutil.move(world.settings.source + "-away", world.settings.source)
    texts = world.texts()
    rebuild(restored)
    check_rebuilt(restored, texts, embedded=world.embeddings.embedded)


def test_a_writer_that_is_still_active_elsewhere_is_noticed(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = backup()
    publish_more(world)
    restored = opened(world, old)
    add = prepared_documents.add_chunks

    def publish_first(*arguments: object) -> None:
        monkeypatch.undo()
        world.put("late.txt", paragraphs("late", 1))
        world.ingest()
        add(*arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(prepared_documents, "add_chunks", publish_first)
    with pytest.raises(ConflictError):
        rebuild(restored)
    texts = world.texts()
    rebuild(restored)
    check_rebuilt(restored, texts, embedded=world.embeddings.embedded)


def test_the_places_of_a_rebuild_are_complete(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World]
) -> None:
    old = backup()
    publish_more(world)
    restored = opened(world, old)
    passed = passages_of(lambda: crash_jobs.rebuild(restored.address))
    assert {name for name, _ in passed} == set(REBUILD)
    assert all(count <= REBUILD[name] for (name, _), count in passed.items()), sorted(passed.items())


def die_and_rebuild(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World], place: Place
) -> None:
    old = backup()
    publish_more(world)
    texts, embedded = world.texts(), world.embeddings.embedded
    restored = opened(world, old)
    assert Child(crash_jobs.rebuild, restored.address, kill_at=place).outcome().killed
    rebuild(restored)
    restored.recover()
    check_rebuilt(restored, texts, embedded=embedded)


@pytest.mark.promise("copies-and-rebuilds")
@pytest.mark.parametrize("place", decisive_places(REBUILD)[1::4], ids=str)
def test_a_rebuild_may_die_at_decisive_places(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World], place: Place
) -> None:
    die_and_rebuild(world, backup, opened, place)


@pytest.mark.promise("copies-and-rebuilds")
@pytest.mark.soak
@pytest.mark.parametrize("place", places(REBUILD), ids=str)
def test_a_rebuild_may_die_anywhere(
    world: World, backup: Callable[[], str], opened: Callable[[World, str], World], place: Place
) -> None:
    die_and_rebuild(world, backup, opened, place)


@pytest.mark.promise("copies-and-rebuilds")
def test_a_dump_that_is_restored_elsewhere_and_a_clone_for_staging(
    world: World, postgres: str, entrance: str, opened: Callable[[World, str], World], tmp_path: Path
) -> None:
    """pg_dump and a copy of the folder make a pair that works on its own once it has taken its table over."""
    dump = tmp_path / "catalog.dump"
    parts = urlsplit(world.database.url)
    tools = find_binaries(ServerAccount(), None)
    if not (tools / "pg_dump").exists():
        pytest.skip("these Postgres programs have no pg_dump")
    environment = {**os.environ, "PGPASSWORD": parts.password or ""}
    where = ["-h", parts.hostname or "", "-p", str(parts.port), "-U", parts.username or ""]

    def run(program: str, *arguments: str) -> None:
        subprocess.run([tools / program, *where, *arguments], env=environment, check=True, capture_output=True)

    run("pg_dump", "-Fc", "-f", str(dump), parts.path[1:])
    shutil.copytree(world.settings.lancedb_uri, tmp_path / "staging")
    url = empty_database(postgres, entrance)
    run("pg_restore", "-d", urlsplit(url).path[1:], str(dump))
    staging = World(
        opened(world, url).database, world.settings.replace(lancedb_uri=str(tmp_path / "staging")), world.embeddings
    )
    on_the_same_table = World(staging.database, world.settings, world.embeddings)
    with pytest.raises(OtherDatabaseError, match="--take-over"):
        on_the_same_table.ingest()
    with pytest.raises(CorpusMismatchError, match="relocate"):
        staging.ingest()
    texts, embedded = world.texts(), world.embeddings.embedded
    rebuild(staging)
    check_rebuilt(staging, texts, embedded=embedded)
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    world.check_nothing_left()
    staging.ingest()
    staging.check_nothing_left()


@pytest.mark.promise("copies-and-rebuilds")
def test_a_copied_state_folder_is_its_own_database_and_touches_nothing_of_the_original(
    world: World, tmp_path: Path, opened: Callable[[World, str], World]
) -> None:
    """``cp -a`` of a stopped embedded Postgres: the same numbers, another folder."""
    tmp_path.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    first = EmbeddedPostgres(state / "postgres")
    original = opened(world, first.start())
    original.settings = world.settings.replace(lancedb_uri=str(state / "lancedb"))
    original.ingest()
    original.database.close()
    first.release()
    subprocess.run(["cp", "-a", str(state), str(tmp_path / "copy")], check=True)
    second = EmbeddedPostgres(tmp_path / "copy" / "postgres")
    copy = opened(world, second.start())
    try:
        copy.settings = original.settings
        before = sorted(path for path in Path(original.settings.lancedb_uri).rglob("*"))
        for act in (lambda: recover(copy.corpus), copy.sweep):
            with pytest.raises(OtherDatabaseError):
                act()
        copy.settings = world.settings.replace(lancedb_uri=str(tmp_path / "copy" / "lancedb"))
        rebuild(copy)
        check_rebuilt(copy, copy.texts(), embedded=world.embeddings.embedded)
        assert sorted(path for path in Path(original.settings.lancedb_uri).rglob("*")) == before
    finally:
        copy.database.close()
        second.release()
