"""Queries on the views of latest documents and of documents at head use the partial index of the table."""

from __future__ import annotations

from typing import Any

import pytest

from ingest_pipeline.postgres.sql import query
from tests.support.world import World, paragraphs

_MANY_VERSIONS = """
WITH made AS (
    INSERT INTO ingest_pipeline.saga (id, generation, kind, state, base_version, published_version, writer)
    SELECT gen_random_uuid(), %(generation)s, 'ingest', 'published', n, n + 1, 'for the test'
    FROM generate_series(1000, 1200) n RETURNING id, published_version
)
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, published_version, superseded_version)
SELECT %(generation)s, 'old-' || k, id, 'old', published_version, published_version + 1
FROM made, generate_series(1, 50) k
"""


def indices(plan: dict[str, Any]) -> set[str]:
    """Names of the indices that a plan uses."""
    return {plan.get("Index Name", ""), *(name for part in plan.get("Plans", []) for name in indices(part))} - {""}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count_documents", {}),
        ("latest_documents", {"partitions": None, "keys": None, "after": ""}),
        ("first_partition", {}),
        ("corpus_totals", {}),
    ],
)
def test_a_query_on_documents_at_head_reads_no_row_of_an_earlier_version(
    world: World, name: str, values: dict[str, object]
) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    generation = world.corpus.generation
    with world.database.transaction() as connection:
        connection.execute(_MANY_VERSIONS, {"generation": generation})
        connection.execute("ANALYZE ingest_pipeline.document")
        row = connection.execute(
            "EXPLAIN (FORMAT JSON) " + query(name), {"generation": generation, **values}
        ).fetchone()
    assert row is not None
    used = indices(row["QUERY PLAN"][0]["Plan"])
    assert "document_current" in used or "document_tombstone" in used, used
