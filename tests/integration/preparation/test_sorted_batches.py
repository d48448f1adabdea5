"""Requests for a GPU of the user's own: texts of about the same length, within a budget of tokens with padding."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from tests.support.world import World, ingest, mark_served

_BUDGET = 1024
_BYTES_PER_TOKEN = 4


def _padding(world: World) -> float:
    """The share of padding in what a GPU computes, if it pads each text of a request to the longest."""
    rectangles = world.embeddings.lengths
    return 1 - sum(map(sum, rectangles)) / sum(len(lengths) * max(lengths) for lengths in rectangles)


def _write(world: World, name: str) -> None:
    for number in range(60):
        words = " ".join(f"{name}{number}-{word}" for word in range(2 + number * 7 % 60))
        world.put(f"{name}{number:02}.txt", words)


def test_a_server_receives_texts_of_one_length_together_within_the_budget(world: World) -> None:
    mark_served(world.database, world.embedding_settings)
    plain = replace(world.settings.embedder_settings, base_url=world.embeddings.base_url)
    _write(world, "plain")
    ingest(world.context, plain)
    assert _padding(world) > 0.4, "in the order of the documents, half of the work is padding"
    world.embeddings.reset_counters()
    sorted_settings = world.settings.replace(embedding_batch_tokens=_BUDGET)
    _write(world, "sorted")
    ingest(world.context, replace(sorted_settings.embedder_settings, base_url=world.embeddings.base_url))
    assert _padding(world) < 0.2
    requests = world.embeddings.lengths
    assert len(requests) > 1
    for lengths in requests:
        assert len(lengths) * ceil(max(lengths) / _BYTES_PER_TOKEN) <= _BUDGET
    assert sum(map(len, requests)) == 60
    world.check()
