"""A run that dies inside one large document is resumed: recorded texts are not embedded again.

The server counts the texts that it embedded; the ledger says which were recorded.
"""

from __future__ import annotations

import pytest

from ingest_pipeline.failpoints import Boundary
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import in_turns
from tests.support.world import World, mark_served, paragraphs

pytestmark = pytest.mark.promise("in-flight-only")

CHUNKS = 200
IN_FLIGHT = 32
"""Batches that a run may have sent and not recorded: twice its concurrency."""


def die_after(world: World, batches: int) -> None:
    """Ingest in a process that is killed when so many batches of its own are recorded."""
    mark_served(world.database, world.embedding_settings)
    place = Place(Boundary.BATCH_RECORDED, "after", batches)
    assert Child(crash_jobs.ingest, world.address, kill_at=place).outcome().killed
    world.embeddings.wait_until_quiet()


@pytest.mark.parametrize("batches", in_turns([(1,), (2,), (6,), (12,), (24,)], 0))
def test_after_a_run_is_killed_only_unrecorded_texts_are_embedded(world: World, batches: int) -> None:
    assert world.corpus
    size = world.embedding_settings.batch_inputs
    world.put("large.txt", paragraphs("alpha", CHUNKS))
    die_after(world, batches)
    kept, sent = world.recorded_vectors, world.embeddings.embedded
    assert kept >= batches * size
    assert sent - kept <= IN_FLIGHT * size
    world.embeddings.reset_counters()
    world.ingest()
    needed = len(world.chunks("large.txt"))
    assert needed >= CHUNKS
    assert world.embeddings.embedded == needed - kept
    assert world.audit().violations == []


def test_a_document_whose_runs_die_repeatedly_is_embedded_once_plus_texts_in_flight(world: World) -> None:
    assert world.corpus
    size = world.embedding_settings.batch_inputs
    world.put("large.txt", paragraphs("alpha", 4 * CHUNKS))
    lost = 0
    for _ in range(4):
        before = world.recorded_vectors, world.embeddings.embedded
        die_after(world, 2)
        lost += (world.embeddings.embedded - before[1]) - (world.recorded_vectors - before[0])
    assert world.recorded_vectors >= 4 * 2 * size
    world.ingest()
    assert world.embeddings.embedded == len(world.chunks("large.txt")) + lost
    world.recover()
    world.check_nothing_left()


def test_after_a_killed_edit_of_a_large_document_unchanged_texts_are_not_embedded(world: World) -> None:
    world.put("large.txt", paragraphs("alpha", CHUNKS))
    world.ingest()
    world.embeddings.reset_counters()
    world.put("large.txt", paragraphs("alpha", CHUNKS) + "\n\n" + paragraphs("beta", 40))
    die_after(world, 2)
    kept = world.recorded_vectors
    world.embeddings.reset_counters()
    world.ingest()
    assert world.embeddings.embedded <= 42 - kept
    assert world.audit().violations == []
