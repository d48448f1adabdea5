"""What looking vectors up costs in Postgres: a few blocks a text, however large the catalog is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.preparation.vectors.lookup import VectorLookup
from ingest_pipeline.preparation.vectors.recorded_texts import RecordedTexts
from ingest_pipeline.types import Usage
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("pay-once")

_FILL = """
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, published_version, chunk_count)
SELECT generation, 'filled-' || n, saga, 'filled', published_version, 100
FROM ingest_pipeline.document, generate_series(1, %(documents)s) n WHERE key = 'a.txt';
"""
_FILL_CHUNKS = """
INSERT INTO ingest_pipeline.chunk (saga, document, ordinal, id, start_offset, end_offset, text_hash)
SELECT saga, key, n, gen_random_uuid(), n, n + 1,
    CASE WHEN n = 0 THEN %(everywhere)s ELSE md5(key || n)::uuid END
FROM ingest_pipeline.document, generate_series(0, 99) n WHERE key LIKE 'filled-%%'
"""
EVERYWHERE = UUID(int=1)
"""A text that every one of the documents holds."""


def blocks_read(connection: Connection, name: str, values: dict[str, Any]) -> int:
    """Blocks that a query touches, in memory or not."""
    row = connection.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query(name), values).fetchone()
    assert row is not None
    (explained,) = row["QUERY PLAN"]
    return explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]


def test_a_look_up_reads_a_few_blocks_per_text_in_a_catalog_of_any_size(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    found: list[int] = []
    for documents in (100, 900):
        with world.database.transaction() as connection:
            connection.execute("DELETE FROM ingest_pipeline.document WHERE partition = 'filled'")
            connection.execute(_FILL, {"documents": documents})
            connection.execute(_FILL_CHUNKS, {"everywhere": EVERYWHERE})
            connection.execute("ANALYZE ingest_pipeline.chunk")
            connection.execute("ANALYZE ingest_pipeline.document")
            hashes: Sequence[UUID] = [
                row["text_hash"]
                for row in connection.execute("SELECT text_hash FROM ingest_pipeline.chunk WHERE ordinal = 7 LIMIT 100")
            ]
            wanted = [*hashes, EVERYWHERE, *(UUID(int=n) for n in range(2, 29))]
            values = {"generation": world.corpus.generation, "text_hashes": wanted, "without": []}
            found.append(blocks_read(connection, "published_texts", values))
    # A step or two down an index for the text, another for its document, and sixteen of each for the text of all.
    assert found[1] < 128 * 20
    assert found[1] < 2 * found[0]


def test_a_look_up_in_a_large_document_costs_no_more_right_after_its_publication(world: World) -> None:
    """The planner knows nothing of the rows yet; autovacuum tells it within a minute."""
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    with world.database.transaction() as connection:
        connection.execute(
            "INSERT INTO ingest_pipeline.chunk (saga, document, ordinal, id, start_offset, end_offset, text_hash) "
            "SELECT saga, key, n, gen_random_uuid(), n, n + 1, md5(n::text)::uuid "
            "FROM ingest_pipeline.document, generate_series(1, 20000) n WHERE key = 'a.txt'"
        )
        rows = connection.execute("SELECT text_hash FROM ingest_pipeline.chunk ORDER BY text_hash LIMIT 128")
        values = {
            "generation": world.corpus.generation,
            "text_hashes": [row["text_hash"] for row in rows],
            "without": [],
        }
        assert blocks_read(connection, "published_texts", values) < 128 * 20


_BATCHES = """
INSERT INTO ingest_pipeline.embedded_batch (saga, ordinal, embedding, text_hashes, checksum)
SELECT s.id, n, 'test-embedding/32',
    ARRAY(SELECT md5(s.id || '-' || n || '-' || m)::uuid FROM generate_series(1, 128) m),
    decode(repeat('00', 32), 'hex')
FROM ingest_pipeline.saga s, generate_series(%(first)s::int, %(last)s::int) n WHERE s.id = %(saga)s
"""


def begin(world: World, connection: Connection, batches: int) -> UUID:
    """A saga that has recorded so many batches."""
    saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)
    connection.execute(_BATCHES, {"saga": saga, "first": 1, "last": batches})
    return saga


def texts_of(connection: Connection, saga: UUID, ordinal: int) -> list[UUID]:
    row = connection.execute(
        "SELECT text_hashes FROM ingest_pipeline.embedded_batch WHERE (saga, ordinal) = (%s, %s)", (saga, ordinal)
    ).fetchone()
    assert row is not None
    return row["text_hashes"]


def test_vectors_are_looked_up_in_the_batches_that_have_them(world: World) -> None:
    with world.database.transaction() as connection:
        saga = begin(world, connection, 400)
        recorded = RecordedTexts(world.corpus.generation, "test-embedding/32")
        recorded.refresh(connection)
        wanted = texts_of(connection, saga, 7)
        batches = recorded.batches_of([*wanted, *(UUID(int=n) for n in range(128))])
        assert batches == {(saga, 7)}
        found = embedding_cache.staged_texts(connection, batches, dimensions=32, text_hashes=wanted)
        assert [text.text_hash for text in sorted(found, key=lambda text: text.index)] == wanted
        values = {"sagas": [saga], "ordinals": [7], "width": 128, "text_hashes": wanted}
        assert blocks_read(connection, "staged_texts", values) < 16


@pytest.mark.parametrize("batches", [100, 2_000])
def test_only_batches_that_are_new_are_read_again(world: World, batches: int) -> None:
    with world.database.transaction() as connection:
        first, second = begin(world, connection, batches), begin(world, connection, 1)
        recorded = RecordedTexts(world.corpus.generation, "test-embedding/32")
        recorded.refresh(connection)
        connection.execute(_BATCHES, {"saga": first, "first": batches + 1, "last": batches + 1})
        connection.execute(_BATCHES, {"saga": second, "first": 2, "last": 3})
        known = {first: batches, second: 1}
        rows = embedding_cache.recorded_texts(
            connection, world.corpus.generation, "test-embedding/32", known=known, limit=64
        )
        assert [batch for batch, _ in rows] == sorted([(first, batches + 1), (second, 2), (second, 3)])
        new = texts_of(connection, first, batches + 1)
        assert not any(text in recorded for text in new)
        recorded.refresh(connection)
        assert all(text in recorded for text in new)


def test_a_text_of_a_batch_that_is_gone_is_found_in_another_one(world: World) -> None:
    """Two sagas may embed the same text at the same time. Then one of the files is lost."""
    recipe, spool, wanted = world.settings.recipe, world.corpus.table.spool, [UUID(int=n) for n in range(3)]
    vectors = np.ones((3, recipe.embedding_dimensions), dtype=np.float32)
    with world.database.transaction() as connection:
        for _ in range(2):
            saga = begin(world, connection, 0)
            embedding_cache.record_batch(
                connection,
                saga,
                ordinal=0,
                embedding=recipe.embedding,
                text_hashes=wanted,
                checksum=spool.write(spool_name(saga, 0), [vectors]),
                characters=1,
                usage=Usage(),
            )
    lookup = VectorLookup(world.corpus, recipe, UUID(int=1))
    with world.database.transaction() as connection:
        lookup.refresh(connection)
    assert lookup.find(wanted).keys() == set(wanted)
    for left in (1, 0):
        with world.database.transaction() as connection:
            connection.execute(
                "DELETE FROM ingest_pipeline.embedded_batch WHERE saga = "
                "(SELECT min(saga::text)::uuid FROM ingest_pipeline.embedded_batch)"
            )
        assert lookup.find(wanted).keys() == (set(wanted) if left else set())
