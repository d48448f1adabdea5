"""A database that is older than its table, or a copy of another, undoes nothing and removes nothing by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ingest_pipeline.corpus import table_identity
from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.corpus.table_identity import examine, this_database
from ingest_pipeline.errors import CorpusMismatchError, NotOurTableError, OtherDatabaseError
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.recover import recover, take_over
from ingest_pipeline.saga.transaction import transaction
from ingest_pipeline.types import DEFAULT_RETENTION
from tests.support.crash.tables import SCHEMA, rows_of
from tests.support.servers.databases import copy_of
from tests.support.world import World, commit_above, mark, paragraphs


@pytest.fixture
def world(world: World) -> World:
    for number in range(3):
        world.put(f"{number}.txt", paragraphs(f"topic{number}", 2))
    world.ingest()
    return world


@pytest.fixture
def clone(world: World, postgres: str) -> Generator[World]:
    """The same corpus over the same table, by a copy of the database."""
    world.database.close()
    copied = copy_of(postgres, world.database.url)
    world.database.open()
    with Database(copied) as database:
        yield World(database, world.settings, world.embeddings)


def files_of(world: World) -> dict[str, bytes]:
    table = Path(world.settings.table_uri)
    return {str(path.relative_to(table)): path.read_bytes() for path in table.rglob("*") if path.is_file()}


def writes(world: World) -> list[Callable[[], object]]:
    """All that writes into a table or forgets something, each of which opens the corpus anew."""
    world = World(world.database, world.settings, world.embeddings)
    with world.database.transaction() as connection:
        row = corpora.read_current(connection, world.settings.corpus)
    assert row is not None
    corpus = find_corpus(world.database, world.settings)
    return [
        world.ingest,
        lambda: recover(corpus, silence=0),
        lambda: recover(corpus, foreign="adopt"),
        lambda: sweep(corpus),
        lambda: sweep(corpus, dry_run=True),
        lambda: maintain(corpus, DEFAULT_RETENTION),
        lambda: world.roll_back(row.head_version),
    ]


def check_refused(world: World, error: type[Exception] = OtherDatabaseError) -> None:
    """Every writer is told, before it buys, writes or removes anything."""
    before, embedded = files_of(world), world.embeddings.embedded
    for write in writes(world):
        with pytest.raises(error):
            write()
    assert files_of(world) == before
    assert world.embeddings.embedded == embedded


def test_every_version_names_the_database_that_wrote_it_and_where(world: World) -> None:
    with world.database.transaction() as connection:
        here = this_database(connection)
    for version in world.corpus.table.versions():
        made = world.corpus.table.mark_of(version)
        assert made is not None
        assert made.database == here.identity
        assert made.table == world.settings.table_uri
        assert made.flushed is not None
        assert made.corpus is not None
        assert (made.corpus.source, made.corpus.embedding) == (world.settings.source, world.settings.recipe.embedding)
    assert all((here.identity.installation, here.identity.system, here.identity.timeline, here.identity.folder))


def test_a_mark_is_read_as_it_was_written_even_without_a_database() -> None:
    bare = VersionMark(uuid4(), None)
    assert VersionMark.read(bare.properties()) == bare
    assert VersionMark.read({}) is None


def test_properties_that_the_server_hides_are_empty(database: Database) -> None:
    with database.transaction() as connection:
        known = this_database(connection)
        connection.execute("CREATE SCHEMA hidden")
        connection.execute(
            "CREATE FUNCTION hidden.pg_control_system(OUT system_identifier bigint) LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE insufficient_privilege; END $$"
        )
        connection.execute("ALTER FUNCTION ingest_pipeline.this_database SET search_path = hidden, pg_catalog")
        hidden = this_database(connection)
    assert (known.identity.system != "", hidden.identity.system) == (True, "")
    assert hidden.identity.timeline == known.identity.timeline


@pytest.mark.promise("copies-and-rebuilds")
def test_a_clone_is_refused_before_it_writes_and_destroys_nothing(world: World, clone: World) -> None:
    world.put("0.txt", paragraphs("changed", 2))
    check_refused(clone)
    world.ingest()
    texts = world.texts()
    check_refused(clone)
    assert world.texts() == texts
    world.check_nothing_left()


@pytest.mark.promise("copies-and-rebuilds")
def test_a_clone_that_takes_the_table_over_fences_the_other(world: World, clone: World) -> None:
    version = take_over(find_corpus(clone.database, clone.settings))
    assert version == world.head + 1
    clone.put("new.txt", paragraphs("new", 1))
    clone.ingest()
    clone.check_nothing_left()
    check_refused(world)
    assert take_over(clone.corpus) is None


def test_a_clone_does_not_take_over_versions_that_it_does_not_know(world: World, clone: World) -> None:
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    with pytest.raises(OtherDatabaseError, match="--rebuild-catalog"):
        take_over(find_corpus(clone.database, clone.settings))


def as_a_snapshot(world: World) -> Callable[[], None]:
    """Remember the rows of the database; the returned function puts them back into the very same database."""
    tables = (
        "corpus",
        "generation",
        "saga",
        "document",
        "chunk",
        "staged_fragment",
        "embedded_batch",
        "failure",
        "hold",
    )
    with world.database.transaction() as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE public.old_{table} AS TABLE ingest_pipeline.{table}".encode())

    def restore() -> None:
        with world.database.transaction() as connection:
            connection.execute(
                "TRUNCATE ingest_pipeline.corpus, ingest_pipeline.generation, ingest_pipeline.saga CASCADE"
            )
            for table in tables:
                connection.execute(f"INSERT INTO ingest_pipeline.{table} TABLE public.old_{table}".encode())

    return restore


@pytest.mark.promise("copies-and-rebuilds")
def test_a_database_set_back_in_place_undoes_nothing_that_was_published_since(world: World) -> None:
    """As by a snapshot of its disk: it is the same database by every number that a server has."""
    set_back = as_a_snapshot(world)
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    published = world.texts()
    set_back()
    check_refused(world)
    assert world.texts(world.corpus.table.latest_version()) == published


@pytest.mark.promise("copies-and-rebuilds")
def test_a_saga_that_was_active_during_the_backup_is_not_undone(world: World) -> None:
    with world.database.transaction() as connection:
        saga = sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head
        )
    change = Change((), Removal("document = '0.txt'"))
    version = commit_above(world.corpus.table, world.head, change, mark(world.corpus, saga, prepared=False))
    check_refused(world)
    with world.database.transaction() as connection:
        assert sagas.abandon_live(connection, world.corpus.generation, "by a switch") == [saga]
    check_refused(world)
    assert world.corpus.table.latest_version() == version


def test_a_prepared_saga_is_not_undone_if_the_database_lost_a_part_of_its_log(world: World) -> None:
    with world.database.transaction() as connection:
        saga = sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head
        )
        sagas.mark_prepared(connection, saga)
    made = mark(world.corpus, saga)
    assert made.flushed is not None
    ahead = replace(made, flushed=made.flushed + 2**40)
    commit_above(world.corpus.table, world.head, Change((), Removal("document = '0.txt'")), ahead)
    check_refused(world)


def test_a_restore_that_died_leaves_no_version_and_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its saga is unknown to the ledger, so a version of it would pass for another database's."""
    with world.database.transaction() as connection:
        saga = sagas.begin(
            connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=world.head
        )
    commit_above(world.corpus.table, world.head, Change((), Removal("document = '0.txt'")), mark(world.corpus, saga))
    texts = world.texts()
    with monkeypatch.context() as patched:
        patched.setattr(corpora, "move_head", lambda *_, **__: 1 / 0)  # pyright: ignore[reportUnknownLambdaType]
        with pytest.raises(ZeroDivisionError):
            world.recover()
    assert world.corpus.table.latest_version() == world.head + 1
    world.recover()
    assert world.texts() == texts == world.texts(world.corpus.table.latest_version())
    world.check_nothing_left()


@pytest.mark.promise("copies-and-rebuilds")
def test_files_of_unknown_sagas_are_kept_and_reported(world: World) -> None:
    rows = world.corpus.table.rows(world.head, world.corpus.table.columns(world.head))
    name = world.corpus.table.stage(f"{UUID(int=7)}-0.lance", rows).name
    report = world.sweep()
    assert (report.files, report.unknown) == ([], [f"data/{name}"])
    assert f"data/{name}" in world.corpus.table.all_files()
    assert (world.audit().unknown_files, world.audit().violations) == (1, [])


def test_versions_that_the_user_restored_away_are_swept(world: World, clone: World) -> None:
    texts = world.texts()
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    corpus = find_corpus(clone.database, clone.settings)
    recover(corpus, foreign="restore")
    assert clone.texts() == texts
    clone.check_nothing_left()
    check_refused(world)


def test_a_copied_state_folder_is_refused_because_its_table_is_elsewhere(world: World, tmp_path: Path) -> None:
    """Its catalog still names the table of the original, which it must neither recover nor sweep."""
    copied = world.settings.replace(lancedb_uri=str(tmp_path / "copy"))
    shutil.copytree(world.settings.lancedb_uri, copied.lancedb_uri)
    with pytest.raises(CorpusMismatchError, match="relocate"):
        find_corpus(world.database, copied)
    with pytest.raises(CorpusMismatchError):
        World(world.database, copied, world.embeddings).ingest()


def test_a_copied_table_is_reported_and_can_be_taken_over(world: World, tmp_path: Path) -> None:
    copied = world.settings.replace(lancedb_uri=str(tmp_path / "copy"))
    shutil.copytree(world.settings.lancedb_uri, copied.lancedb_uri)
    uri = copied.table_uri
    with world.database.transaction() as connection:
        row = corpora.read_generation(connection, "docs")
        assert row is not None
        finding = examine(connection, replace(row, table_uri=uri), LanceTable(uri))
        connection.execute("UPDATE ingest_pipeline.generation SET table_uri = %s", (uri,))
    assert (finding.holds_head, finding.is_ours, finding.newer) == (True, True, None)
    assert finding.written_at == world.settings.table_uri != uri
    moved = World(world.database, copied, world.embeddings)
    check_refused(moved)
    take_over(find_corpus(moved.database, copied))
    moved.check_nothing_left()


def test_another_table_at_the_location_is_refused(world: World, tmp_path: Path) -> None:
    other = CorpusSettings("docs_two", str(tmp_path / "docs_two.lance"), SCHEMA)
    with transaction(open_corpus(world.database, other)) as change:
        change.add(rows_of(["a"]))
    shutil.rmtree(world.settings.table_uri)
    shutil.copytree(other.table_uri, world.settings.table_uri)
    check_refused(World(world.database, world.settings, world.embeddings), NotOurTableError)


def test_a_table_from_an_older_backup_is_refused_with_a_remedy(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.settings.table_uri, tmp_path / "backup")
    world.put("new.txt", paragraphs("new", 1))
    world.ingest()
    shutil.rmtree(world.settings.table_uri)
    shutil.copytree(tmp_path / "backup", world.settings.table_uri)
    check_refused(World(world.database, world.settings, world.embeddings))


def test_a_table_whose_database_was_lost_is_not_treated_as_half_created(database: Database, tmp_path: Path) -> None:
    settings = CorpusSettings("prices", str(tmp_path / "prices.lance"), SCHEMA)
    open_corpus(database, settings)
    with database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.saga")
        connection.execute("DELETE FROM ingest_pipeline.generation")
        mine = this_database(connection)
    other = replace(mine, identity=replace(mine.identity, number="1"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table_identity, "this_database", lambda _: other)  # pyright: ignore[reportUnknownLambdaType]
        with pytest.raises(NotOurTableError, match="--rebuild-catalog"):
            open_corpus(database, settings)
    open_corpus(database, settings)
