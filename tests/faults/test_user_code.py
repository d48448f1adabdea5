"""A writer that is killed around the call of an extension never pays for a recorded result again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.failpoints import Boundary
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import OWN_CODE, places
from tests.support.world import World, passages_of

LATER = [
    Place(Boundary.BATCH_SENT, "before"),
    Place(Boundary.FRAGMENT_RECORDED, "after"),
    Place(Boundary.PREPARED, "after"),
    Place(Boundary.LANCE_COMMIT, "before"),
    Place(Boundary.LANCE_COMMIT, "after"),
    Place(Boundary.ACKNOWLEDGED, "before"),
]


@pytest.fixture
def enriched(world: World, tmp_path: Path) -> World:
    """A corpus with an enricher that is billed for each call, and a document."""
    enricher = {"class": "tests.support.user_code.Costly", "arguments": {"calls": str(tmp_path / "calls")}}
    found = World(world.database, world.settings.replace(enricher=enricher), world.embeddings)
    assert found.corpus
    found.put("a.txt", "some words")
    return found


def calls(tmp_path: Path) -> int:
    path = tmp_path / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_places_are_all_there_are(enriched: World) -> None:
    passed = passages_of(enriched.ingest)
    assert {name: count for (name, side), count in passed.items() if name in OWN_CODE and side == "after"} == OWN_CODE


@pytest.mark.parametrize("place", [*places(OWN_CODE), *LATER], ids=str)
def test_a_death_pays_at_most_for_the_call_that_was_in_progress(enriched: World, place: Place, tmp_path: Path) -> None:
    assert Child(crash_jobs.ingest, enriched.address, kill_at=place).outcome().killed
    before = calls(tmp_path)
    was_recorded = place == Place(Boundary.RESULT_RECORDED, "after") or place in LATER
    assert before == (0 if place == Place(Boundary.EXTENSION_CALLED, "before") else 1)
    enriched.recover()
    enriched.ingest()
    assert calls(tmp_path) == (before if was_recorded else before + 1)
    assert enriched.text_at("a.txt") == "some words"
    enriched.check()
    enriched.check_nothing_left()
