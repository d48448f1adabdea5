"""A writer that is killed at any boundary leaves no partial publication, no duplicate rows and no orphan files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
from _pytest.mark import ParameterSet

from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.partitioning import FILE
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import (
    BLOCKED_INGEST,
    COLLECTION,
    COLUMN_CHANGE,
    CREATION,
    CREATION_IN_A_STORE,
    DROP,
    EMPTYING,
    ERASURE,
    ERASURE_IN_DAGSTER,
    FIRST_INGEST,
    FIRST_SUBMISSION,
    LISTENING,
    MAINTENANCE,
    MIGRATION,
    OWN_CODE,
    PROTOCOLS,
    RECOVERY,
    RELOCATION,
    REPLACEMENT,
    ROLLBACK,
    SUBMISSION,
    SWEEP,
    is_soaked,
    places,
    shared_places,
)
from tests.support.world import World, ended_saga, leave_version_above_head, paragraphs, passages_of
from tools import figures

pytestmark = pytest.mark.promise("settled", "again", "in-flight-only", "nothing-left")

FIRST = {"a.txt": paragraphs("alpha", 3), "b.txt": paragraphs("beta", 2)}
SECOND = {"a.txt": paragraphs("gamma", 2)}
OTHER = ("other.txt", paragraphs("other", 2))
AFTER_LANCE_COMMIT = Place(Boundary.LANCE_COMMIT, "after")
PIVOTS = [
    Place(Boundary.BATCH_RECORDED, "after"),
    Place(Boundary.FRAGMENT_WRITTEN, "after"),
    Place(Boundary.PREPARED, "after"),
    Place(Boundary.LANCE_COMMIT, "before"),
    AFTER_LANCE_COMMIT,
    Place(Boundary.ACKNOWLEDGED, "before"),
]
"""Each leaves another kind of thing behind."""


def run_again(world: World) -> None:
    world.ingest()


def run_another(world: World) -> None:
    world.put(*OTHER)
    world.ingest([FILE.partition_of(OTHER[0])])
    assert world.text_at(OTHER[0])


def recover_alone(world: World) -> None:
    world.recover()
    assert world.corpus.table.latest_version() == world.head


Recovery = Callable[[World], None]
RECOVERIES: list[Recovery] = [run_again, run_another, recover_alone]


def put_first(world: World) -> None:
    assert world.corpus
    for key, text in FIRST.items():
        world.put(key, text)


def put_second(world: World) -> None:
    put_first(world)
    world.ingest()
    world.put("a.txt", SECOND["a.txt"])
    world.remove("b.txt")
    world.embeddings.reset_counters()


def stored(texts: dict[str, str]) -> dict[str, str]:
    """Without the spaces, of which a chunk drops those at its ends."""
    return {key: "".join(text.split()) for key, text in texts.items()}


def seen(world: World) -> dict[str, str]:
    found = world.texts()
    found.pop(OTHER[0], None)
    return stored(found)


def settle_and_check(world: World, recovery: Recovery, old: dict[str, str], new: dict[str, str]) -> None:
    """What a reader sees is the old state or the new one before recovery, after it, and the new one in the end."""
    states = [stored(old), stored(new)]
    assert seen(world) in states
    world.check()
    was_published = seen(world) == states[1]
    at_crash = world.embeddings.embedded
    in_flight = 0 if was_published else at_crash - world.recorded_vectors
    recovery(world)
    assert seen(world) in states
    world.check()
    world.recover()
    world.check_nothing_left()
    world.ingest()
    assert seen(world) == states[1]
    needed = sum(len(world.chunks(key)) for key in new if old.get(key) != new[key])
    embedded = sum(count for text, count in world.embeddings.texts.items() if "other" not in text)
    figures.count("texts needed after a death", needed)
    figures.count("texts embedded after a death", embedded)
    assert embedded == needed + in_flight
    check_again_is_the_same(world)


def check_again_is_the_same(world: World) -> None:
    before = world.head, world.embeddings.requests
    world.ingest()
    assert (world.head, world.embeddings.requests) == before
    world.check_nothing_left()


def crash_first(world: World, place: Place, recovery: Recovery) -> None:
    put_first(world)
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    settle_and_check(world, recovery, {}, FIRST)


def crash_second(world: World, place: Place, recovery: Recovery) -> None:
    put_second(world)
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    settle_and_check(world, recovery, FIRST, SECOND)


def in_turn(found: Sequence[Place | ParameterSet]) -> list[ParameterSet]:
    """Each place once, with the ways to recover taking turns."""
    return [
        pytest.param(*found_at.values, RECOVERIES[number % len(RECOVERIES)], marks=found_at.marks)
        for number, found_at in enumerate(ParameterSet.extract_from(place, force_tuple=True) for place in found)
    ]


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize(("place", "recovery"), in_turn(PIVOTS), ids=name_of)
def test_a_first_ingest_may_die_at_decisive_places(world: World, place: Place, recovery: Recovery) -> None:
    crash_first(world, place, recovery)


@pytest.mark.promise("sigkill")
@pytest.mark.soak
@pytest.mark.parametrize("recovery", RECOVERIES, ids=name_of)
@pytest.mark.parametrize("place", places(FIRST_INGEST), ids=name_of)
def test_a_first_ingest_may_die_anywhere(world: World, place: Place, recovery: Recovery) -> None:
    crash_first(world, place, recovery)


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize(("place", "recovery"), in_turn(shared_places(REPLACEMENT)), ids=name_of)
def test_a_replacement_may_die_anywhere(world: World, place: Place, recovery: Recovery) -> None:
    crash_second(world, place, recovery)


@pytest.mark.promise("sigkill")
@pytest.mark.soak
@pytest.mark.parametrize("recovery", RECOVERIES, ids=name_of)
@pytest.mark.parametrize("place", places(REPLACEMENT), ids=name_of)
def test_a_replacement_may_die_anywhere_and_be_recovered_in_every_way(
    world: World, place: Place, recovery: Recovery
) -> None:
    crash_second(world, place, recovery)


@pytest.mark.promise("empty-files")
@pytest.mark.parametrize(("place", "recovery"), in_turn(shared_places(EMPTYING)), ids=name_of)
def test_a_publication_of_a_file_that_became_empty_may_die_anywhere(
    world: World, place: Place, recovery: Recovery
) -> None:
    put_first(world)
    world.ingest()
    world.embeddings.reset_counters()
    world.put("a.txt", "")
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    settle_and_check(world, recovery, FIRST, {"b.txt": FIRST["b.txt"]})
    assert world.audit().documents == len(world.texts()) + 1, "the empty document is one, too"


def crash_rollback(world: World, place: Place, recovery: Recovery) -> None:
    """Version 2 has the first documents, head the second; recovering must not count for a rollback, nor undo one."""
    put_second(world)
    world.ingest()
    embedded = world.embeddings.embedded
    assert Child(crash_jobs.roll_back, world.address, 2, kill_at=place).outcome().killed
    states = [stored(FIRST), stored(SECOND)]
    found = seen(world)
    assert found in states
    world.check()
    recovery(world)
    assert seen(world) == found
    world.check()
    world.recover()
    world.check_nothing_left()
    world.roll_back(2, *FIRST)
    assert seen(world) == states[0]
    world.check()
    check_again_is_the_same(world)
    assert sum(count for text, count in world.embeddings.texts.items() if "other" not in text) == embedded


@pytest.mark.promise("rollbacks")
@pytest.mark.parametrize(("place", "recovery"), in_turn(shared_places(ROLLBACK)), ids=name_of)
def test_a_rollback_may_die_anywhere(world: World, place: Place, recovery: Recovery) -> None:
    crash_rollback(world, place, recovery)


@pytest.mark.soak
@pytest.mark.parametrize("recovery", RECOVERIES, ids=name_of)
@pytest.mark.parametrize("place", places(ROLLBACK), ids=name_of)
def test_a_rollback_may_die_anywhere_and_be_recovered_in_every_way(
    world: World, place: Place, recovery: Recovery
) -> None:
    crash_rollback(world, place, recovery)


def crash_recovery(world: World, first: Place, second: Place) -> None:
    put_second(world)
    assert Child(crash_jobs.ingest, world.address, kill_at=first).outcome().killed
    leave_version_above_head(world)
    states = [stored(FIRST), stored(SECOND)]
    Child(crash_jobs.recover, world.address, kill_at=second).outcome()
    assert seen(world) in states
    world.check()
    recover_alone(world)
    assert seen(world) in states
    world.check()
    world.check_nothing_left()
    world.ingest()
    assert seen(world) == states[1]
    check_again_is_the_same(world)


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize("place", shared_places(RECOVERY), ids=name_of)
def test_recovery_may_die_anywhere(world: World, place: Place) -> None:
    crash_recovery(world, AFTER_LANCE_COMMIT, place)


@pytest.mark.promise("sigkill")
@pytest.mark.soak
@pytest.mark.parametrize(("first", "second"), list(product(places(REPLACEMENT), places(RECOVERY))), ids=name_of)
def test_a_replacement_and_its_recovery_may_both_die_anywhere(world: World, first: Place, second: Place) -> None:
    crash_recovery(world, first, second)


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize("place", shared_places(SWEEP), ids=name_of)
def test_a_sweep_may_die_anywhere(world: World, place: Place) -> None:
    put_second(world)
    assert Child(crash_jobs.ingest, world.address, kill_at=AFTER_LANCE_COMMIT).outcome().killed
    leave_version_above_head(world)
    world.recover()
    world.corpus.table.stage(f"{ended_saga(world)}-0.lance", world.corpus.table.schema.empty_table())
    assert Child(crash_jobs.sweep, world.address, kill_at=place).outcome().killed
    assert seen(world) == stored(FIRST)
    world.check_nothing_left()
    world.ingest()
    assert seen(world) == stored(SECOND)
    check_again_is_the_same(world)


def wear(world: World) -> None:
    """One fragment most of whose rows are gone, and another."""
    put_first(world)
    world.ingest()
    world.put("a.txt", SECOND["a.txt"])
    world.ingest()


def crash_maintenance(world: World, place: Place) -> None:
    wear(world)
    before = seen(world)
    assert Child(crash_jobs.maintain, world.address, 1, kill_at=place).outcome().killed
    assert seen(world) == before
    world.check()
    world.recover()
    world.check_nothing_left()
    assert Child(crash_jobs.maintain, world.address, 1).outcome().result == world.head
    assert seen(world) == before
    [fragment] = world.corpus.table.fragments(world.head)
    assert fragment.deleted == 0
    check_again_is_the_same(world)


@pytest.mark.promise("sigkill", "maintenance")
@pytest.mark.parametrize("place", shared_places(MAINTENANCE), ids=name_of)
def test_maintenance_may_die_anywhere(world: World, place: Place) -> None:
    crash_maintenance(world, place)


@pytest.mark.promise("sigkill")
@pytest.mark.soak
@pytest.mark.parametrize("place", places(MAINTENANCE), ids=name_of)
def test_maintenance_may_die_at_every_passage(world: World, place: Place) -> None:
    crash_maintenance(world, place)


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize("place", shared_places(CREATION), ids=name_of)
def test_the_creation_of_a_corpus_may_die_anywhere(world: World, place: Place) -> None:
    for key, text in FIRST.items():
        world.put(key, text)
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    world.ingest()
    assert seen(world) == stored(FIRST)
    world.recover()
    check_again_is_the_same(world)


def deaths_of(kind: dict[Boundary, int]) -> set[Place]:
    """Without the deaths that only `make soak` runs."""
    found = [death.values[0] for death in shared_places(kind) if not is_soaked(death)]
    return {place for place in found if isinstance(place, Place)}


def test_each_boundary_has_a_death_in_each_way_to_commit_and_each_side_has_one() -> None:
    sides: set[tuple[Boundary, str]] = set()
    for number, kinds in enumerate(PROTOCOLS):
        deaths = {(place.boundary, place.side) for kind in kinds for place in deaths_of(kind)}
        boundaries = {boundary for kind in kinds for boundary in kind}
        assert {boundary for boundary, _ in deaths} == boundaries
        own = boundaries if number == 0 else boundaries - set(REPLACEMENT)
        assert deaths >= set(product(own, ("before", "after")))
        sides |= deaths if number else set()
    shared = {*MAINTENANCE, *COLUMN_CHANGE}
    assert sides >= set(product(shared, ("before", "after"))), "also without those of the commits of rows"


def test_each_kind_of_work_dies_on_both_sides_of_its_last_commit() -> None:
    for kind in (kind for kinds in PROTOCOLS for kind in kinds):
        last = {Place(Boundary.COMMIT, side, kind[Boundary.COMMIT]) for side in ("before", "after")}
        assert deaths_of(kind) >= last


@pytest.mark.promise("sigkill")
def test_the_places_are_complete(world: World) -> None:
    """A run passes no boundary more often than the lists above say, and none that they lack."""
    put_first(world)
    first = passages_of(world.ingest)
    put_second(world)
    second = passages_of(world.ingest)
    third = passages_of(lambda: world.roll_back(world.head - 1))
    for passed, listed in ((first, FIRST_INGEST), (second, REPLACEMENT), (third, ROLLBACK)):
        assert {name for name, _ in passed} == set(listed)
        assert all(count <= listed[name] for (name, _), count in passed.items())
    reached = {
        *FIRST_INGEST,
        *REPLACEMENT,
        *RECOVERY,
        *SWEEP,
        *MAINTENANCE,
        *CREATION_IN_A_STORE,
        *MIGRATION,
        *DROP,
        *SUBMISSION,
        *FIRST_SUBMISSION,
        *COLLECTION,
        *RELOCATION,
        *OWN_CODE,
        *ERASURE,
        *ERASURE_IN_DAGSTER,
        *LISTENING,
        *BLOCKED_INGEST,
    }
    assert reached == set(Boundary)


def test_the_places_of_an_emptied_file_are_complete(world: World) -> None:
    put_first(world)
    world.ingest()
    world.put("a.txt", "")
    passed = passages_of(world.ingest)
    assert {name for name, _ in passed} == set(EMPTYING)
    assert all(count <= EMPTYING[name] for (name, _), count in passed.items())


def test_the_places_of_maintenance_are_complete(world: World) -> None:
    wear(world)
    passed = passages_of(lambda: crash_jobs.maintain(world.address, 1))
    assert {name for name, _ in passed} == set(MAINTENANCE)
    assert all(count <= MAINTENANCE[name] for (name, _), count in passed.items()), sorted(passed.items())
