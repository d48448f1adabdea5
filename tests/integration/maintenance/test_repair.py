"""A repair publishes what is wrong, whichever store it is wrong in, and leaves alone what is right."""

from __future__ import annotations

import asyncio
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.maintenance.repair import repair
from ingest_pipeline.saga.transaction import transaction
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("damage")


@pytest.fixture
def world(world: World) -> World:
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    return world


def repaired(world: World) -> Summary:
    async def run() -> Summary:
        async with OpenAIEmbedder(world.embedding_settings) as embedder:
            return await repair(world.context, embedder, world.audit())

    summary = asyncio.run(run())
    assert world.audit().violations == []
    return summary


def rows_of(world: World, key: str) -> pa.Table:
    columns = [field.name for field in world.corpus.table.schema]
    return world.corpus.table.rows(world.head, columns, f"document = '{key}'")


def saga_of(world: World, key: str) -> UUID:
    return world.chunks(key)[0].saga


def test_a_repair_without_violations_does_nothing(world: World) -> None:
    before = world.head
    assert repaired(world).publications == []
    assert world.head == before


def test_only_lost_vectors_are_embedded_again(world: World) -> None:
    with transaction(world.corpus) as change:
        change.delete("document = 'a.txt' AND ordinal = 1")
    embedded, other = world.embeddings.embedded, saga_of(world, "b.txt")
    repaired(world)
    assert world.embeddings.embedded == embedded + 1
    assert saga_of(world, "b.txt") == other


def test_rows_that_another_program_added_are_removed(world: World) -> None:
    twice, stranger = rows_of(world, "a.txt"), rows_of(world, "b.txt")
    place = stranger.schema.get_field_index("document")
    stranger = stranger.set_column(place, stranger.schema.field(place), pa.array(["ghost.txt"] * stranger.num_rows))
    with transaction(world.corpus) as change:
        change.add(twice)
        change.add(stranger)
    embedded = world.embeddings.embedded
    repaired(world)
    assert world.embeddings.embedded == embedded
    assert rows_of(world, "ghost.txt").num_rows == 0
    assert rows_of(world, "a.txt").num_rows == twice.num_rows


def test_a_vector_that_is_not_finite_is_not_used(world: World) -> None:
    rows = rows_of(world, "a.txt")
    place = rows.schema.get_field_index("vector")
    broken = np.full(rows.num_rows * world.embeddings.dimensions, np.nan, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(broken), world.embeddings.dimensions)
    with transaction(world.corpus) as change:
        change.delete("document = 'a.txt'")
        change.add(rows.set_column(place, rows.schema.field(place), vectors))
    here = sorted(world.corpus.table.at(world.head).fragment_ids())
    with world.database.transaction() as connection:
        # As if it had been so from the start: the catalog knows where the rows are.
        connection.execute("UPDATE ingest_pipeline.document SET fragments = %s WHERE key = 'a.txt'", (here,))
    embedded = world.embeddings.embedded
    repaired(world)
    assert world.embeddings.embedded == embedded + rows.num_rows


def test_lost_catalog_rows_are_restored_without_embedding(world: World) -> None:
    embedded = world.embeddings.embedded
    with world.database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.document WHERE key = 'a.txt'")
    repaired(world)
    assert len(world.chunks("a.txt")) > 0
    assert world.embeddings.embedded <= embedded + rows_of(world, "a.txt").num_rows


def test_a_document_that_the_source_lacks_is_removed(world: World) -> None:
    with transaction(world.corpus) as change:
        change.delete("document = 'a.txt' AND ordinal = 1")
    world.remove("a.txt")
    repaired(world)
    assert rows_of(world, "a.txt").num_rows == 0
    assert world.chunks("a.txt") == []
