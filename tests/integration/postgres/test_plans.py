"""Queries on views, and updates through them, use the indices that the same statements on the tables would use."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any

import pytest

from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.sql import query
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World, paragraphs

_MANY_VERSIONS = """
WITH made AS (
    INSERT INTO ingest_pipeline.saga
        (id, generation, kind, state, base_version, published_version, writer, run_id, reported_at)
    SELECT gen_random_uuid(), %(generation)s, 'ingest', 'published', n, n + 1, 'for the test', 'run', now()
    FROM generate_series(1000, 1200) n RETURNING id, published_version
)
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, published_version, superseded_version)
SELECT %(generation)s, 'old-' || k, id, 'old', published_version, published_version + 1
FROM made, generate_series(1, 50) k
"""
_SOME_AT_HEAD = """
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, published_version)
SELECT name, 'new-' || n, head_saga, 'new-' || n, head_version
FROM ingest_pipeline.generation, generate_series(1, 300) n WHERE name = %(generation)s
"""
_MANY_FAILURES = """
INSERT INTO ingest_pipeline.saga (id, generation, kind, state, base_version, writer, run_id)
SELECT gen_random_uuid(), %(generation)s, 'ingest', 'failed', 1, 'for the test', 'run' FROM generate_series(1, 5000)
"""
_MANY_GENERATIONS = """
WITH named AS (
    INSERT INTO ingest_pipeline.corpus (name) SELECT 'other' || n FROM generate_series(1, 500) n
)
INSERT INTO ingest_pipeline.generation (name, corpus, table_uri, head_version, head_saga)
SELECT 'other' || n, 'other' || n, 'memory://' || n, 1, gen_random_uuid() FROM generate_series(1, 500) n
"""
_VALUES: dict[str, object] = {
    "after": "",
    "etag": "",
    "id": uuid.UUID(int=1),
    "key": "a.txt",
    "keys": None,
    "last_modified": None,
    "limit": 1,
    "new": [2],
    "old": [1],
    "partitions": None,
    "saga": uuid.UUID(int=1),
    "version": 2,
}
_HEAD = {"document_current"}


def parts_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan and all plans in it."""
    return [plan, *(part for child in plan.get("Plans", []) for part in parts_of(child))]


@pytest.fixture(scope="module")
def filled(postgres: str, entrance: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """Some documents at head, many of earlier versions, and many other corpora. No test changes them."""
    with Database(empty_database(postgres, entrance)) as database, EmbeddingServer() as embeddings:
        world = World.over(tmp_path_factory.mktemp("plans"), database, embeddings)
        world.put("a.txt", paragraphs("alpha", 1))
        world.ingest()
        with database.transaction() as connection:
            connection.execute(_MANY_VERSIONS, {"generation": world.corpus.generation})
            connection.execute(_SOME_AT_HEAD, {"generation": world.corpus.generation})
            connection.execute(_MANY_FAILURES, {"generation": world.corpus.generation})
            connection.execute(_MANY_GENERATIONS)
            for table in ("document", "saga", "generation"):
                connection.execute(f"ANALYZE ingest_pipeline.{table}")
        yield world


def plan_of(world: World, name: str, values: dict[str, object] | None = None) -> list[dict[str, Any]]:
    generation = world.corpus.generation
    known = {"generation": generation, "name": generation, "corpus": world.corpus.name, "names": [generation]}
    with world.database.transaction() as connection:
        row = connection.execute("EXPLAIN (FORMAT JSON) " + query(name), _VALUES | known | (values or {})).fetchone()
    assert row is not None
    return parts_of(row["QUERY PLAN"][0]["Plan"])


def indices(parts: list[dict[str, Any]]) -> set[str]:
    """Names of the indices that a plan uses."""
    return {part["Index Name"] for part in parts if "Index Name" in part}


def scanned(parts: list[dict[str, Any]]) -> set[str]:
    """Names of the tables that a plan reads from the first to the last row."""
    return {part["Relation Name"] for part in parts if part["Node Type"] == "Seq Scan"}


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("count_documents", {}, _HEAD),
        ("latest_documents", {}, _HEAD),
        ("latest_documents", {"keys": ["a.txt"]}, _HEAD),
        ("first_partition", {}, _HEAD),
        ("corpus_totals", {}, _HEAD),
        ("move_rows", {"keys": ["a.txt"]}, _HEAD),
        ("latest_documents", {"partitions": ["new-7"]}, {"document_partition"}),
        ("partition_states", {"partitions": ["new-7"]}, {"document_partition"}),
        ("supersede_keys", {"keys": ["a.txt"]}, _HEAD),
        ("supersede_documents", {}, {"saga_pkey", "document_pkey", *_HEAD}),
        ("conflicting_documents", {}, {"saga_pkey", "document_pkey", *_HEAD}),
        ("refresh_etag", {}, _HEAD),
        ("read_generation", {}, {"generation_pkey"}),
        ("read_current", {}, {"generation_current"}),
        ("lock_generation", {}, {"generation_pkey"}),
        ("lock_generations", {}, {"generation_pkey"}),
        ("read_saga", {}, {"saga_pkey"}),
        ("unfinished_sagas", {}, {"saga_unfinished"}),
        ("unreported_sagas", {}, {"saga_unreported"}),
    ],
)
def test_a_statement_on_a_view_uses_the_index_of_the_table(
    filled: World, name: str, values: dict[str, object], wanted: set[str]
) -> None:
    parts = plan_of(filled, name, values)
    assert (indices(parts), scanned(parts)) == (wanted, set())


@pytest.mark.parametrize("name", ["documents_at", "documents_in_fragments", "chunks_at", "expected_documents"])
def test_the_function_of_a_version_is_inlined(filled: World, name: str) -> None:
    parts = plan_of(filled, name, {"fragments": [1]})
    # The chunks of an edited document are found by its ranges.
    assert {part.get("Function Name") for part in parts} <= {None, "unnest"}
    assert "document" in {part.get("Relation Name") for part in parts}


@pytest.mark.parametrize("name", ["lock_generation", "lock_generations"])
def test_a_lock_through_the_view_locks_the_row_of_the_table(filled: World, name: str) -> None:
    generation = filled.corpus.generation
    with filled.database.transaction() as connection:
        connection.execute(query(name), {"name": generation, "names": [generation]})
        with filled.database.transaction() as other:
            free = other.execute("SELECT name FROM ingest_pipeline.generation FOR NO KEY UPDATE SKIP LOCKED").fetchall()
    assert generation not in {row["name"] for row in free}
    assert len(free) == 500
