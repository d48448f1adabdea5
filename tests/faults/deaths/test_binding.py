"""An empty corpus takes other settings, also if the process that changes them dies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.ingestion.context import open_context
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.migrating import address_after, world_after
from tests.support.crash.places import MOVED_WHILE_EMPTY, WIDENED_WHILE_EMPTY, shared_places
from tests.support.world import Address, World, paragraphs, passages_of


def elsewhere(settings: CorpusConfig) -> CorpusConfig:
    return settings.replace(lancedb_uri=f"{settings.lancedb_uri}-2")


def address_elsewhere(world: World) -> Address:
    return replace(world.address, settings=elsewhere(world.settings))


def check(world: World) -> None:
    """What a process left that died is settled, and the corpus is as the new settings say, whole."""
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    assert world.texts().keys() == {"a.txt"}
    world.recover()
    world.check_nothing_left()


@pytest.mark.promise("binding")
@pytest.mark.parametrize("place", shared_places(WIDENED_WHILE_EMPTY), ids=str)
def test_a_change_of_the_width_may_die_anywhere(world: World, place: Place) -> None:
    assert world.corpus
    assert Child(crash_jobs.sweep, address_after(world), kill_at=place).outcome().killed
    check(world_after(world))


@pytest.mark.promise("binding")
@pytest.mark.parametrize("place", shared_places(MOVED_WHILE_EMPTY), ids=str)
def test_a_change_of_the_folder_may_die_anywhere(world: World, place: Place) -> None:
    assert world.corpus
    assert Child(crash_jobs.drop_retired, address_elsewhere(world), kill_at=place).outcome().killed
    there = replace(world, settings=elsewhere(world.settings), _context=None)
    check(there)
    crash_jobs.drop_retired(there.address)
    assert [path.name for path in Path(world.settings.lancedb_uri).iterdir()] == []


def test_the_places_of_changed_settings_are_complete(world: World) -> None:
    assert world.corpus
    widened = passages_of(lambda: open_context(world.database, address_after(world).settings))
    moved = passages_of(lambda: open_context(world.database, elsewhere(address_after(world).settings)))
    for passed, listed in ((widened, WIDENED_WHILE_EMPTY), (moved, MOVED_WHILE_EMPTY)):
        assert {name for name, _ in passed} == set(listed)
        assert all(count <= listed[name] for (name, _), count in passed.items()), passed
