"""A writer that lost its lock without noticing changes nothing that a reader sees, and leaves nothing behind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from ingest_pipeline.corpus.corpus import Corpus, CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.partitioning import FILE
from ingest_pipeline.postgres.catalog.holds import read_holds
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.saga.transaction import transaction
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Outcome, Place
from tests.support.crash.meanwhile import once_at
from tests.support.crash.places import in_turns
from tests.support.crash.tables import SCHEMA, rows_of
from tests.support.crash.zombie import Zombie, named
from tests.support.world import (
    Address,
    World,
    ended_saga,
    leave_version_above_head,
    paragraphs,
    staged_manifests,
)

WITH_LOCK = [
    Place(Boundary.LOCK_TAKEN, "after"),
    Place(Boundary.ROWS_WRITTEN, "after"),
    Place(Boundary.HEAD_MOVED, "after"),
    Place(Boundary.LANCE_COMMIT, "before"),
    Place(Boundary.LANCE_COMMIT, "after"),
    Place(Boundary.VERSION_CHECKED, "before"),
    Place(Boundary.VERSION_CHECKED, "after"),
]
"""Between the lock and COMMIT: whoever stops here has not published, and is taken for dead."""
WITHOUT_LOCK = [
    Place(Boundary.BATCH_SENT, "after"),
    Place(Boundary.FRAGMENT_WRITTEN, "before"),
    Place(Boundary.FRAGMENT_WRITTEN, "after"),
    Place(Boundary.PREPARED, "after"),
]
ROWS_REMOVED = Place(Boundary.ROWS_REMOVED, "after")
FIRST, OURS, THEIRS = paragraphs("first", 2), paragraphs("ours", 3), paragraphs("theirs", 2)


def own_sagas(world: World) -> set[UUID]:
    """Of the only other writer, which has not published."""
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT id FROM ingest_pipeline.saga "
            "WHERE generation = %s AND kind IN ('ingest', 'rollback') AND state <> 'published'",
            (world.corpus.generation,),
        )
        return {row["id"] for row in rows}


def sagas_at(world: World, version: int) -> set[UUID]:
    return {UUID(saga) for saga in world.corpus.table.rows(version, ["saga"])["saga"].to_pylist()}


def zombie_address(world: World) -> Address:
    return replace(world.address, database_url=named(world.database.url))


def start(world: World, place: Place, partitions: list[str] | None = None) -> Zombie:
    zombie = Zombie(world.database.url, crash_jobs.ingest, zombie_address(world), partitions, place=place)
    zombie.die()
    return zombie


def check_after(world: World, dead: set[UUID], outcome: Outcome) -> None:
    """What the zombie had prepared is nowhere; it heard of it in an error of ours, or planned again."""
    assert outcome.ours, outcome.message
    assert not sagas_at(world, world.head) & dead
    world.check()
    world.recover()
    assert world.corpus.table.latest_version() == world.head
    world.check_nothing_left()
    for version in world.corpus.table.versions():
        assert not sagas_at(world, version) & dead


def wake_overtaken(world: World, zombie: Zombie) -> Outcome:
    """Recover, publish something else, and wake the zombie, which changes nothing that readers see."""
    world.recover()
    world.put("a.txt", THEIRS)
    world.ingest()
    before = world.head, world.texts()
    outcome = zombie.wake()
    assert world.texts(before[0]) == world.texts() == before[1]
    return outcome


@pytest.mark.promise("zombies")
@pytest.mark.parametrize("place", in_turns(WITHOUT_LOCK + WITH_LOCK, 0), ids=str)
def test_the_same_document_into_an_empty_table(world: World, place: Place) -> None:
    assert world.corpus
    world.put("a.txt", OURS)
    zombie = start(world, place)
    dead = own_sagas(world)
    outcome = wake_overtaken(world, zombie)
    assert outcome.result == [] or outcome.error
    check_after(world, dead, outcome)


@pytest.mark.promise("zombies")
@pytest.mark.parametrize("place", [*WITH_LOCK, ROWS_REMOVED], ids=str)
def test_the_same_document_replaced(world: World, place: Place) -> None:
    world.put("a.txt", FIRST)
    world.put("b.txt", FIRST + " b")
    world.ingest()
    world.put("a.txt", OURS)
    world.remove("b.txt")
    zombie = start(world, place)
    dead = own_sagas(world)
    outcome = wake_overtaken(world, zombie)
    assert outcome.result == [] or outcome.error
    check_after(world, dead, outcome)


@pytest.mark.promise("rollbacks")
@pytest.mark.parametrize("place", in_turns([*WITHOUT_LOCK[1:], *WITH_LOCK, ROWS_REMOVED], 0), ids=str)
def test_an_abandoned_rollback_takes_nothing_back(world: World, place: Place) -> None:
    """It does not plan again: what was published since is not what the person wanted to be rid of."""
    world.put("a.txt", FIRST)
    world.ingest()
    version = world.head
    world.put("a.txt", OURS)
    world.put("b.txt", OURS)
    world.ingest()
    zombie = Zombie(world.database.url, crash_jobs.roll_back, zombie_address(world), version, place=place)
    zombie.die()
    dead = own_sagas(world)
    outcome = wake_overtaken(world, zombie)
    assert outcome.error
    with world.database.transaction() as connection:
        assert read_holds(connection, world.corpus.generation) == {}
    check_after(world, dead, outcome)


@pytest.mark.promise("zombies")
@pytest.mark.parametrize("place", [WITH_LOCK[0], *WITH_LOCK[3:5], WITH_LOCK[-1]], ids=str)
def test_another_document_while_the_zombie_sleeps(world: World, place: Place) -> None:
    """Woken, the zombie plans again as a living writer and publishes its document by another saga, if at all."""
    world.put("a.txt", FIRST)
    world.ingest()
    world.put("a.txt", OURS)
    zombie = start(world, place)
    dead = own_sagas(world)
    world.recover()
    world.put("other.txt", THEIRS)
    world.ingest([FILE.partition_of("other.txt")])
    theirs = world.head
    before = world.texts()
    outcome = zombie.wake()
    assert world.texts(theirs) == before
    assert world.text_at("other.txt") == before["other.txt"]
    check_after(world, dead, outcome)


def test_a_zombie_that_wakes_before_the_next_publication_publishes_nothing(world: World) -> None:
    """Its version is staged when the other writer comes for the lock, and no reader sees it."""
    assert world.corpus
    world.put("a.txt", OURS)
    zombie = start(world, Place(Boundary.LANCE_COMMIT, "before"))
    dead = own_sagas(world)
    world.recover()
    outcome = zombie.wake()
    world.put("a.txt", THEIRS)
    world.ingest()
    check_after(world, dead, outcome)


@pytest.mark.promise("settled")
def test_a_version_left_above_head_is_undone_by_the_next_publication(world: World) -> None:
    """Without a recovery in between: whoever comes for the lock finds it."""
    world.put("a.txt", FIRST)
    world.ingest()
    dead = {leave_version_above_head(world)}
    left = world.corpus.table.latest_version()
    assert left > world.head
    world.put("other.txt", THEIRS)
    world.ingest([FILE.partition_of("other.txt")])
    with world.database.transaction() as connection:
        rows = [sagas.read(connection, saga) for saga in dead]
    assert [row.state for row in rows if row] == ["compensated"]
    assert world.head == left + 2, "the version that restores, and the publication"
    check_after(world, dead, Outcome())


@pytest.mark.promise("zombies")
@pytest.mark.parametrize("first", [{}, {"first.txt": FIRST}], ids=["empty_table", "table_with_rows"])
def test_a_zombie_that_stages_its_version_just_before_another_writer(world: World, first: dict[str, str]) -> None:
    assert world.corpus
    for key, text in first.items():
        world.put(key, text)
    world.ingest()
    world.put("a.txt", OURS)
    zombie = start(world, Place(Boundary.LANCE_COMMIT, "before"))
    dead = own_sagas(world)
    world.recover()
    world.put("a.txt", THEIRS)
    base = world.head

    staged = staged_manifests(world.settings.table_uri)

    def let_it_stage() -> None:
        zombie.resume()
        deadline = time.monotonic() + 300
        while staged_manifests(world.settings.table_uri) == staged:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    with once_at((Boundary.LANCE_COMMIT, "before"), let_it_stage):
        [publication] = world.ingest().publications
    assert publication.version == base + 1, "the zombie's version of that number is not visible"
    assert not sagas_at(world, publication.version) & dead
    assert "".join(world.text_at("a.txt").split()) == "".join(THEIRS.split())
    check_after(world, dead, zombie.outcome())


@pytest.fixture
def table(database: Database, tmp_path: Path, corpus_name: str) -> CorpusSettings:
    settings = CorpusSettings(corpus_name, str(tmp_path / "prices.lance"), SCHEMA)
    open_corpus(database, settings)
    return settings


def ids(corpus: Corpus, version: int) -> list[str]:
    return sorted(corpus.table.rows(version, ["id"])["id"].to_pylist())


@pytest.mark.promise("own-table")
@pytest.mark.parametrize("rows", [[], ["first"]], ids=["empty_table", "table_with_rows"])
@pytest.mark.parametrize("place", in_turns(WITH_LOCK, 1), ids=str)
def test_a_transaction_ends_in_an_error_and_leaves_nothing(
    database: Database, table: CorpusSettings, place: Place, rows: list[str]
) -> None:
    corpus = open_corpus(database, table)
    if rows:
        with transaction(corpus) as change:
            change.add(rows_of(rows))
    zombie = Zombie(database.url, crash_jobs.add_rows, named(database.url), table, ["zombie"], place=place)
    zombie.die()
    recover(corpus, silence=0)
    with transaction(corpus) as change:
        change.add(rows_of(["theirs"]))
    published = corpus.head().head_version
    outcome = zombie.wake()
    assert outcome.ours
    assert outcome.error is not None
    assert ids(corpus, published) == ids(corpus, corpus.head().head_version) == sorted([*rows, "theirs"])
    recover(corpus, silence=0)
    sweep(corpus)
    assert all("zombie" not in ids(corpus, version) for version in corpus.table.versions())
    with database.transaction() as connection:
        assert sagas.unfinished(connection, corpus.generation) == []
    assert sweep(corpus).files == []


@pytest.mark.promise("zombies")
@pytest.mark.parametrize(
    "place",
    [
        Place(Boundary.LOCK_TAKEN, "after"),
        Place(Boundary.RESTORED, "before"),
        Place(Boundary.RESTORED, "after"),
        Place(Boundary.HEAD_MOVED, "after"),
        Place(Boundary.SETTLED, "after"),
    ],
    ids=str,
)
def test_a_zombie_in_recovery_undoes_no_later_publication(world: World, place: Place) -> None:
    world.put("a.txt", FIRST)
    world.ingest()
    leave_version_above_head(world)
    zombie = Zombie(world.database.url, crash_jobs.recover, zombie_address(world), place=place)
    zombie.die()
    world.put("a.txt", THEIRS)
    world.ingest()
    before = world.head, world.texts()
    outcome = zombie.wake()
    assert world.texts(before[0]) == world.texts() == before[1]
    check_after(world, set(), outcome)


@pytest.mark.promise("maintenance")
@pytest.mark.parametrize(
    "place",
    [
        Place(Boundary.LANCE_COMMIT, "before"),
        Place(Boundary.LANCE_COMMIT, "after"),
        Place(Boundary.INDEX_BUILT, "after"),
        Place(Boundary.LANCE_COMMIT, "before", 2),
        Place(Boundary.RETIRED, "after"),
        Place(Boundary.VERSIONS_REMOVED, "before"),
    ],
    ids=str,
)
def test_a_zombie_in_maintenance_changes_no_later_row(world: World, place: Place) -> None:
    world.put("a.txt", FIRST)
    world.put("b.txt", FIRST + " b")
    world.ingest()
    world.put("a.txt", OURS)
    world.ingest()
    zombie = Zombie(world.database.url, crash_jobs.maintain, zombie_address(world), 1, place=place)
    zombie.die()
    outcome = wake_overtaken(world, zombie)
    check_after(world, set(), outcome)


@pytest.mark.promise("zombies")
@pytest.mark.parametrize(
    "place", [Place(Boundary.VERSIONS_REMOVED, "before"), Place(Boundary.FILE_REMOVED, "before")], ids=str
)
def test_a_stopped_sweep_removes_no_later_file(world: World, place: Place) -> None:
    world.put("a.txt", FIRST)
    world.ingest()
    leave_version_above_head(world)
    world.recover()
    world.put("a.txt", OURS)
    world.corpus.table.stage(f"{ended_saga(world)}-0.lance", world.corpus.table.schema.empty_table())
    zombie = Zombie(world.database.url, crash_jobs.sweep, zombie_address(world), place=place)
    zombie.die()
    world.ingest()
    before = world.head, world.texts()
    outcome = zombie.wake()
    assert (world.head, world.texts()) == before
    check_after(world, set(), outcome)
