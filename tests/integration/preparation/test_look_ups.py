"""What looking vectors up costs in Postgres: a few blocks a text, however large the catalog is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.postgres.sql import query
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


def test_a_look_up_among_staged_vectors_reads_no_batch_that_lacks_the_text(world: World) -> None:
    with world.database.transaction() as connection:
        saga = sagas.begin(connection, generation=world.corpus.generation, kind=SagaKind.INGEST, base_version=1)
        connection.execute(
            "INSERT INTO ingest_pipeline.embedded_batch (saga, ordinal, embedding, text_hashes, checksum) "
            "SELECT %s, n, 'test-embedding/32', ARRAY(SELECT md5(n || '-' || m)::uuid FROM generate_series(1, 128) m), "
            "decode(repeat('00', 32), 'hex') FROM generate_series(1, 400) n",
            (saga,),
        )
        connection.execute("ANALYZE ingest_pipeline.embedded_batch")
        row = connection.execute("SELECT text_hashes FROM ingest_pipeline.embedded_batch WHERE ordinal = 7").fetchone()
        assert row is not None
        values = {"generation": world.corpus.generation, "embedding": "test-embedding/32", "width": 128}
        for wanted in (row["text_hashes"], [UUID(int=n) for n in range(128)]):
            assert blocks_read(connection, "staged_texts", {**values, "text_hashes": wanted}) < 128 * 16
