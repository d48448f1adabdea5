"""A writer that is killed around a call of code of the user never pays for a recorded result again."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from ingest_pipeline.failpoints import Boundary
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import OWN_CODE, in_turns, places
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


@pytest.mark.promise("user-code")
@pytest.mark.parametrize("place", [*places(OWN_CODE), *in_turns(LATER, 0)], ids=str)
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


@pytest.mark.promise("chunk-columns")
@pytest.mark.parametrize("place", [*places(OWN_CODE), *in_turns(LATER, 1)], ids=str)
def test_a_death_pays_no_recorded_result_of_a_chunk_again(world: World, place: Place, tmp_path: Path) -> None:
    enricher = {"class": "tests.support.user_code.Topics", "arguments": {"calls": str(tmp_path / "calls")}}
    settings = world.settings.replace(enricher=enricher, chunk_columns={"topic": "string"})
    found = World(world.database, settings, world.embeddings)
    assert found.corpus
    found.put("a.txt", "some words")
    assert Child(crash_jobs.ingest, found.address, kill_at=place).outcome().killed
    before = calls(tmp_path)
    was_recorded = place == Place(Boundary.RESULT_RECORDED, "after") or place in LATER
    found.recover()
    found.ingest()
    assert calls(tmp_path) == (before if was_recorded else before + 1)
    assert [chunk.columns for chunk in found.chunks("a.txt")] == [{"topic": "some"}]
    found.check()
    found.check_nothing_left()


@pytest.fixture
def embedded(world: World, tmp_path: Path) -> World:
    """A corpus with an embedder that notes each text for which it is billed, and two documents."""
    # A model of its own, because a database may remember what earlier tests were served.
    arguments = {"notes": str(tmp_path / "notes"), "fingerprint": str(uuid4())}
    embedder = {"class": "tests.support.user_code.NotingEmbedder", "arguments": arguments}
    found = World(world.database, world.settings.replace(embedder=embedder), world.embeddings)
    assert found.corpus
    found.put("a.txt", "some words")
    found.put("b.txt", "other words")
    return found


def noted(tmp_path: Path) -> list[str]:
    path = tmp_path / "notes"
    return sorted(path.read_text().splitlines()) if path.exists() else []


TEXTS = ["'other words'", "'some words'"]
EMBEDDING = {Boundary.BATCH_SENT: 2, Boundary.BATCH_RECORDED: 2}
"""One text is sent alone to an embedder that has served nothing yet."""
RECORDED = LATER[1:]
"""Places at which both texts are recorded."""


def test_an_embedder_of_the_user_passes_the_boundaries_of_an_api(embedded: World) -> None:
    passed = passages_of(embedded.ingest)
    assert {name: count for (name, side), count in passed.items() if name in EMBEDDING and side == "after"} == EMBEDDING


@pytest.mark.promise("user-code")
@pytest.mark.parametrize("place", [*places(EMBEDDING), *in_turns(RECORDED, 0)], ids=str)
def test_a_death_embeds_no_recorded_text_of_the_users_embedder_again(
    embedded: World, place: Place, tmp_path: Path
) -> None:
    assert Child(crash_jobs.ingest, embedded.address, kill_at=place).outcome().killed
    before = noted(tmp_path)
    recorded = len(TEXTS) if place in RECORDED else embedded.recorded_vectors
    assert recorded <= len(before) <= recorded + 1
    embedded.recover()
    embedded.ingest()
    assert len(noted(tmp_path)) == len(before) + len(TEXTS) - recorded
    assert sorted(set(noted(tmp_path))) == TEXTS
    embedded.check()
    embedded.check_nothing_left()
