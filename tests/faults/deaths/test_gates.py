"""A writer dies while it judges, blocks, releases or drops: nothing is seen, lost or paid twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.saga.blocked import blocked_publications, drop_publication, release_publication
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import BLOCKED_INGEST, DROP_BLOCKED, JUDGING, RELEASE, decisive_places, places
from tests.support.world import World, paragraphs, passages_of

pytestmark = pytest.mark.promise("gates", "sigkill")

OLD = {"a.txt": paragraphs("alpha", 2), "b.txt": paragraphs("beta", 2)}
NEW = paragraphs("gamma", 2)
_DECIDING = (Boundary.ROWS_WRITTEN, Boundary.LANCE_COMMIT, Boundary.COMMIT, Boundary.MANIFEST_INSTALLED)


@pytest.fixture
def gated(world: World) -> World:
    """Two documents at head; the source has lost the text of one, and another text of the other."""
    assert world.corpus
    for key, text in OLD.items():
        world.put(key, text)
    world.ingest()
    world.put("a.txt", "")
    world.put("b.txt", NEW)
    world.embeddings.reset_counters()
    settings = world.settings.replace(gate_max_lost=0, gate_max_empty=0)
    return World(world.database, settings, world.embeddings)


def is_old(world: World) -> bool:
    """Whether readers see what was before. Otherwise they see what was prepared, all of it."""
    seen = {key: "".join(text.split()) for key, text in world.texts().items()}
    old = {key: "".join(text.split()) for key, text in OLD.items()}
    assert seen in (old, {"b.txt": "".join(NEW.split())})
    return seen == old


def judging() -> list[Place]:
    """What is new in a corpus with gates, and the COMMITs at its end."""
    decisive = decisive_places(BLOCKED_INGEST)
    commits = [place for place in decisive if place.boundary is Boundary.COMMIT][-3:]
    return [place for place in decisive if place.boundary in JUDGING] + commits


def crash_blocking(world: World, place: Place) -> None:
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    assert is_old(world)
    world.check()
    paid = world.embeddings.embedded
    in_flight = paid - world.recorded_vectors
    world.recover()
    world.sweep()
    assert len(blocked_publications(world.corpus)) <= 1
    assert world.ingest().publications == []
    assert is_old(world)
    (blocked,) = blocked_publications(world.corpus)
    assert world.embeddings.embedded == 2 + in_flight
    world.check()
    release_publication(world.corpus, blocked.saga)
    assert not is_old(world)
    assert world.embeddings.embedded == 2 + in_flight
    world.check_nothing_left()


@pytest.mark.parametrize("place", judging(), ids=str)
def test_a_judgement_may_die_anywhere(gated: World, place: Place) -> None:
    crash_blocking(gated, place)


@pytest.mark.soak
@pytest.mark.parametrize("place", places(BLOCKED_INGEST), ids=str)
def test_a_blocked_ingest_may_die_at_every_passage(gated: World, place: Place) -> None:
    crash_blocking(gated, place)


def crash_deciding(world: World, job: Callable[..., object], place: Place) -> bool:
    """Let a decision die; returns whether the publication is still blocked."""
    world.ingest()
    paid = world.embeddings.embedded
    assert Child(job, world.address, kill_at=place).outcome().killed
    is_old(world)
    world.check()
    world.recover()
    world.sweep()
    world.check()
    assert world.embeddings.embedded == paid
    return bool(blocked_publications(world.corpus))


def crash_release(gated: World, place: Place) -> None:
    if crash_deciding(gated, crash_jobs.release_blocked, place):
        assert is_old(gated), "what is blocked was not published"
        release_publication(gated.corpus, blocked_publications(gated.corpus)[0].saga)
    assert not is_old(gated)
    assert gated.ingest().publications == []
    gated.check_nothing_left()


@pytest.mark.parametrize("place", [one for one in decisive_places(RELEASE) if one.boundary in _DECIDING], ids=str)
def test_a_release_may_die_anywhere(gated: World, place: Place) -> None:
    crash_release(gated, place)


@pytest.mark.soak
@pytest.mark.parametrize("place", places(RELEASE), ids=str)
def test_a_release_may_die_at_every_passage(gated: World, place: Place) -> None:
    crash_release(gated, place)


@pytest.mark.parametrize("place", decisive_places(DROP_BLOCKED), ids=str)
def test_a_drop_may_die_anywhere(gated: World, place: Place) -> None:
    if crash_deciding(gated, crash_jobs.drop_blocked, place):
        drop_publication(gated.corpus, blocked_publications(gated.corpus)[0].saga)
    assert is_old(gated)
    gated.check_nothing_left()
    assert len(gated.ingest().blocked) == 1


def test_the_places_are_complete(gated: World) -> None:
    """Each run passes no boundary more often than the lists say, and none that they lack."""
    blocked = passages_of(gated.ingest)
    released = passages_of(lambda: crash_jobs.release_blocked(gated.address))
    gated.put("b.txt", "")
    assert len(gated.ingest().blocked) == 1
    dropped = passages_of(lambda: crash_jobs.drop_blocked(gated.address))
    for passages, known in ((blocked, BLOCKED_INGEST), (released, RELEASE), (dropped, DROP_BLOCKED)):
        counted = {boundary: count for (boundary, side), count in passages.items() if side == "before"}
        # Threads share transactions in one order or another.
        assert counted.pop(Boundary.COMMIT) - known[Boundary.COMMIT] in (0, 1)
        assert counted == {boundary: count for boundary, count in known.items() if boundary is not Boundary.COMMIT}


@pytest.mark.parametrize("decision", ["release", "drop"])
def test_a_writer_that_wakes_after_the_decision_blocks_nothing_again(gated: World, decision: str) -> None:
    """It stopped before its COMMIT, and another one has judged the same documents meanwhile."""
    zombie = Child(crash_jobs.ingest, gated.address, stop_at=Place(Boundary.BLOCKED, "before"))
    assert zombie.wait_until_stopped()
    gated.recover()
    (blocked,) = gated.ingest().blocked
    if decision == "release":
        release_publication(gated.corpus, blocked.saga)
    else:
        drop_publication(gated.corpus, blocked.saga)
    head = gated.head
    zombie.resume()
    assert zombie.outcome().ours
    left = blocked_publications(gated.corpus)
    assert gated.head == head
    assert len(left) == int(decision == "drop"), "after a drop it planned and judged again"
    assert blocked.saga not in {one.saga for one in left}
    gated.check()
