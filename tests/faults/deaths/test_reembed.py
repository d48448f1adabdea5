"""While a corpus is re-embedded, readers see one generation, whole, and no writer publishes to the retired one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.errors import GenerationRetiredError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion import reembed
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.postgres import database
from ingest_pipeline.postgres.catalog.corpora import read_current
from ingest_pipeline.postgres.database import CommitStateUnknownError, Connection
from ingest_pipeline.saga.generations import abort, list_generations, other_generations
from ingest_pipeline.saga.recover import recover
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.migrating import EMBEDDING, WIDTH, Sight, address_after, look, migrate, world_after
from tests.support.crash.places import DROP, MIGRATION, SWITCH, decisive_places, in_turns, places, shared_places
from tests.support.world import World, paragraphs, passages_of

PAUSED = Place(Boundary.PREPARED, "after")
HALF_WAY = Place(Boundary.LANCE_COMMIT, "after", 2)  # the first makes the table
MOVING = Place(Boundary.GENERATION_MOVED, "after")
PLACES_BY_SCHEME = [
    (PAUSED, "folder"),
    (PAUSED, "bucket:1"),
    (HALF_WAY, "bucket:1"),
    (HALF_WAY, "folder"),
    (MOVING, "folder"),
    (MOVING, "bucket:1"),
]


def sight(world: World) -> Sight:
    return look(world.database, world.settings.corpus, world.settings.lancedb_uri)


def fill_source(world: World, folder: str = "") -> None:
    world.put(f"{folder}a.txt", paragraphs("alpha", 3))
    world.put(f"{folder}b.txt", paragraphs("beta", 2))
    world.ingest()


def check_whole(seen: Sight, world: World) -> None:
    assert seen.documents == seen.rows
    assert len(seen.documents) == 2
    assert (seen.width, seen.embedding) in ((WIDTH, EMBEDDING), (32, world.context.recipe.embedding))


def settle_all(world: World) -> None:
    """What the sensors do, taking every other writer for dead."""
    current = world_after(world).corpus
    for generation in (current, *other_generations(current)):
        recover(generation, silence=0)
        sweep(generation)


def finish_and_check(world: World) -> None:
    """Run again, if readers were not moved: then they see the new generation, and nothing is left over."""
    with world.database.transaction() as connection:
        row = read_current(connection, world.settings.corpus)
    assert row is not None
    if row.embedding != EMBEDDING:
        migrate(world.database, address_after(world))
    settle_all(world)
    check_whole(sight(world), world)
    assert sight(world).width == WIDTH
    world_after(world).check_nothing_left()
    states = [found.state for found in list_generations(world.database, world.settings.corpus)]
    assert states == ["retired", "current"]


def die_in_migration(world: World, place: Place) -> None:
    assert Child(crash_jobs.migrate, address_after(world), kill_at=place).outcome().killed
    check_whole(sight(world), world)
    settle_all(world)
    check_whole(sight(world), world)
    finish_and_check(world)


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize("place", shared_places(SWITCH), ids=str)
def test_the_switch_may_die_anywhere(world: World, place: Place) -> None:
    fill_source(world)
    migrate(world.database, address_after(world), then_switch=False)
    embedded = world.embeddings.embedded
    die_in_migration(world, place)
    assert world.embeddings.embedded == embedded


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize("place", in_turns(decisive_places(MIGRATION)[::3], 0), ids=str)
def test_a_reembedding_may_die_at_decisive_places(world: World, place: Place) -> None:
    fill_source(world)
    die_in_migration(world, place)


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize(("place", "scheme"), in_turns(PLACES_BY_SCHEME, 0), ids=str)
def test_a_reembedding_of_documents_that_share_a_partition_may_die(world: World, scheme: str, place: Place) -> None:
    world.settings = world.settings.replace(partition_by=scheme)
    fill_source(world, "folder/")
    embedded = world.embeddings.embedded
    die_in_migration(world, place)
    assert world.embeddings.embedded == 2 * embedded


@pytest.mark.promise("reembedding")
@pytest.mark.soak
@pytest.mark.parametrize("place", places(MIGRATION), ids=str)
def test_a_reembedding_may_die_anywhere(world: World, place: Place) -> None:
    fill_source(world)
    die_in_migration(world, place)


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize("place", shared_places(DROP), ids=str)
def test_a_drop_may_die_anywhere(world: World, place: Place) -> None:
    fill_source(world)
    migrate(world.database, address_after(world))
    new = world_after(world)
    assert Child(crash_jobs.drop_retired, address_after(world), kill_at=place).outcome().killed
    check_whole(sight(world), world)
    crash_jobs.drop_retired(address_after(world))
    assert not [path for path in Path(world.settings.table_uri).rglob("*") if path.is_file()]
    assert [found.state for found in list_generations(world.database, world.settings.corpus)] == ["dropped", "current"]
    new.check_nothing_left()


def test_the_places_of_a_reembedding_are_complete(world: World) -> None:
    fill_source(world)
    whole = passages_of(lambda: migrate(world.database, address_after(world)))
    dropped = passages_of(lambda: crash_jobs.drop_retired(address_after(world)))
    for passed, listed in ((whole, MIGRATION), (dropped, DROP)):
        assert {name for name, _ in passed} == set(listed)
        assert all(count <= listed[name] for (name, _), count in passed.items())


@pytest.mark.promise("reembedding")
def test_readers_see_the_old_generation_or_the_new_one_and_never_a_part(world: World) -> None:
    fill_source(world)
    child = Child(crash_jobs.migrate, address_after(world))
    seen: set[Sight] = set()
    number = 0
    while child.runs():
        number += 1
        if number % 4 == 0:
            world.put("a.txt", paragraphs(f"edit{number}", 1 + number % 3))
            # Its own process, since readers may be moved at any moment.
            Child(crash_jobs.ingest, world.address).outcome()
        seen.add(sight(world))
    outcome = child.outcome()
    assert outcome.error is None, outcome.message
    seen.add(sight(world))
    for one in seen:
        check_whole(one, world)
    assert {one.width for one in seen} == {32, WIDTH}
    settle_all(world)
    world_after(world).check()


@pytest.mark.promise("reembedding")
def test_an_active_writer_on_the_old_generation_gets_an_error(world: World) -> None:
    """It prepared its documents, slept through the switch and woke up: no reader would see what it publishes."""
    fill_source(world)
    world.put("a.txt", paragraphs("edited", 4))
    child = Child(crash_jobs.ingest, world.address, stop_at=PAUSED)
    assert child.wait_until_stopped()
    migrate(world.database, address_after(world))
    seen, old_head = sight(world), world.head
    child.resume()
    outcome = child.outcome()
    assert outcome.error == "GenerationRetiredError", outcome
    assert (sight(world), world.head) == (seen, old_head)
    assert world_after(world).text_at("a.txt").startswith("edited")
    settle_all(world)
    world_after(world).check_nothing_left()


def test_a_writer_that_begins_after_the_switch_uses_the_new_generation_or_fails(world: World) -> None:
    fill_source(world)
    assert world.context  # opened before
    migrate(world.database, address_after(world))
    world.put("a.txt", paragraphs("edited", 4))
    with pytest.raises(GenerationRetiredError, match="was retired"):
        world.ingest()
    assert sight(world).documents == sight(world).rows


def test_an_aborted_reembedding_stops_embedding(world: World) -> None:
    fill_source(world)
    child = Child(crash_jobs.migrate, address_after(world), stop_at=Place(Boundary.BATCH_RECORDED, "after"))
    assert child.wait_until_stopped()
    (beside,) = other_generations(world.corpus)
    migration_bought = world.embeddings.embedded
    abort(beside)
    child.resume()
    outcome = child.outcome()
    assert outcome.error in ("GenerationRetiredError", "FencedError"), outcome
    assert world.embeddings.embedded <= migration_bought + 8
    assert sight(world).width == 32
    settle_all(world)
    world.check_nothing_left()


@pytest.mark.promise("reembedding")
@pytest.mark.parametrize("done", [True, False], ids=["committed", "not_committed"])
def test_an_unconfirmed_switch_is_reported_as_it_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    fill_source(world)
    migrate(world.database, address_after(world), then_switch=False)
    switch, commit = reembed.switch, database._commit  # pyright: ignore[reportPrivateUsage]

    def lose_one(connection: Connection) -> None:
        monkeypatch.setattr(database, "_commit", commit)
        (connection.commit if done else connection.rollback)()
        raise CommitStateUnknownError("the answer was lost")

    def lose_commit_then(*arguments: object) -> bool:
        monkeypatch.setattr(reembed, "switch", switch)
        monkeypatch.setattr(database, "_commit", lose_one)
        return switch(*arguments)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(reembed, "switch", lose_commit_then)
    if done:
        migrate(world.database, address_after(world))
    else:
        with pytest.raises(CommitStateUnknownError):
            migrate(world.database, address_after(world))
    assert sight(world).width == (WIDTH if done else 32)
    finish_and_check(world)
