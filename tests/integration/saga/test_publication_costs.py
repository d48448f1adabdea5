"""What a publication reads under the lock depends on its own documents, not on how many others the corpus has.

Its own documents are those that an ingest publishes, or those with rows in fragments that a compaction or an erasure
replaces.
"""

from __future__ import annotations

from uuid import UUID

import pytest

from ingest_pipeline.postgres.catalog.recipes import recipe_values
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import erasures, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from tests.integration.preparation.test_look_ups import blocks_read
from tests.support.world import World

_FEW, _MANY = 1_000, 10_000
_OF_A_SAGA = 500
_STEP = 20
_GROUP = 2 * _FEW // _STEP
"""Documents of the measured publication: one in twenty of the first ones, and as many new ones."""
_PLAN = """
INSERT INTO ingest_pipeline.document (generation, key, saga, partition, replaces, recipe, etag, size,
    last_modified, character_count, tokens, seconds, chunk_count, embedded, cached, requests, retries)
SELECT %(generation)s,
    'archive/2026/letters/incoming/' || repeat('from-the-north/', 4) || lpad(n::text, 8, '0') || '.txt',
    %(saga)s, 'bucket-' || n %% 64, (%(published)s::uuid[])[n / %(of_a_saga)s::int + 1], 'recipe', md5(n::text),
    2000, now(), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM generate_series(%(first)s::int, %(last)s::int, %(step)s::int) n
"""
_READ = """
UPDATE ingest_pipeline.document SET content_hash = md5(key), character_count = 0, tokens = 0, seconds = 0,
    chunk_count = 3, embedded = 3, cached = 0, requests = 1, retries = 0
WHERE saga = %(saga)s
"""
_PUBLISH = """
UPDATE ingest_pipeline.document SET published_version = %(version)s, fragments = '{1}' WHERE saga = %(saga)s
"""
_PREPARE = "UPDATE ingest_pipeline.saga SET state = 'prepared', prepared_at = now() WHERE id = %(saga)s"
_BLOCK = "UPDATE ingest_pipeline.saga SET state = 'blocked' WHERE id = %(saga)s"
_END = """
UPDATE ingest_pipeline.saga SET state = 'published', published_version = %(version)s, ended_at = now()
WHERE id = %(saga)s
"""
_HOLD = """
INSERT INTO ingest_pipeline.hold (generation, key, partition, recipe, saga)
SELECT generation, key, partition, 'recipe', saga FROM ingest_pipeline.document WHERE saga = %(saga)s
"""
_FAIL = """
INSERT INTO ingest_pipeline.failure
    (generation, key, partition, etag, recipe, attempts, reason, unreadable, final, error)
SELECT generation, key, partition, etag, 'recipe', 1, 'test', false, false, 'test'
FROM ingest_pipeline.document WHERE saga = %(saga)s
"""


class _Corpus:
    """A corpus that grows by publications of made-up documents, each of which failed before and is on hold."""

    def __init__(self, connection: Connection, generation: str) -> None:
        self._connection = connection
        self._generation = generation
        self._published: list[UUID] = []
        self._version = 1

    def grow(self, count: int, *, analyze_first: bool = False) -> None:
        """Publish documents until there are so many.

        Args:
            count: How many.
            analyze_first: Gather statistics once, before the first publication.
        """
        for first in range(_OF_A_SAGA * len(self._published), count, _OF_A_SAGA):
            self._version += 1
            saga = self._prepared(first, first + _OF_A_SAGA - 1)
            if analyze_first and first == 0:
                self.analyze()
            values = {"saga": saga, "version": self._version}
            for statement in (_PUBLISH, _PREPARE, _END, _HOLD, _FAIL):
                self._connection.execute(statement, values)
            self._published.append(saga)

    def analyze(self) -> None:
        for table in ("document", "saga", "hold", "failure"):
            self._connection.execute(f"ANALYZE ingest_pipeline.{table}")

    def _prepared(self, first: int, last: int, step: int = 1) -> UUID:
        saga = sagas.begin(self._connection, generation=self._generation, kind=SagaKind.INGEST, base_version=1)
        self._add(saga, first, last, step)
        return saga

    def _add(self, saga: UUID, first: int, last: int, step: int = 1) -> None:
        values = {"generation": self._generation, "saga": saga, "first": first, "last": last, "step": step}
        self._connection.execute(_PLAN, {**values, "published": self._published, "of_a_saga": _OF_A_SAGA})
        self._connection.execute(_READ, values)

    def group(self) -> UUID:
        """Prepare a publication of some documents that are there and some that are new."""
        saga = self._prepared(0, _FEW - 1, _STEP)
        self._add(saga, 1_000_000, 1_000_000 + _GROUP // 2 - 1)
        sagas.mark_prepared(self._connection, saga)
        return saga

    def block(self) -> None:
        """Leave a blocked publication of other documents."""
        saga = self._prepared(2_000_000, 2_000_000 + _OF_A_SAGA)
        for statement in (_PREPARE, _BLOCK):
            self._connection.execute(statement, {"saga": saga})

    def blocks(self, saga: UUID, recipe: dict[str, object]) -> dict[str, int]:
        """Blocks that each statement of the publication reads, which is then undone."""
        version = self._version + 1
        rows = self._connection.execute("SELECT key FROM ingest_pipeline.document WHERE saga = %s", (saga,)).fetchall()
        keys = [row["key"] for row in rows]
        assert len(keys) == _GROUP
        statements: dict[str, dict[str, object]] = {
            "lock_generation": {"name": self._generation},
            "erased_documents": {"saga": saga},
            "conflicting_documents": {"saga": saga},
            "overtake_blocked": {"saga": saga, "error": "overtaken"},
            "supersede_documents": {"saga": saga, "version": version},
            "hold_documents": {"saga": saga, **recipe},
            "clear_failures": {"generation": self._generation, "keys": keys},
            "release_superseded": {"saga": saga},
            "forget_fragments": {"saga": saga},
            "forget_batches": {"saga": saga},
            "publish_placed": {"saga": saga, "version": version, "keys": keys[1:], "fragments": [7]},
            "publish_documents": {"saga": saga, "version": version},
            "move_rows": {"generation": self._generation, "keys": keys, "old": [1], "new": [9]},
            "publish_saga": {"id": saga, "base_version": version - 1, "version": version},
        }
        with self._connection.transaction(force_rollback=True):
            return {name: blocks_read(self._connection, name, values) for name, values in statements.items()}


@pytest.mark.promise("short-lock")
@pytest.mark.parametrize("statistics", ["none", "before the first publication", "of few documents", "current"])
def test_a_publication_reads_no_more_under_the_lock_in_a_larger_corpus(world: World, statistics: str) -> None:
    """Whatever the planner knows: during a first ingest nothing, or what was true a minute ago."""
    recipe, generation = recipe_values(world.context.recipe), world.corpus.generation
    read: list[dict[str, int]] = []
    with world.database.transaction() as connection:
        erasures.record(
            connection,
            UUID(int=1),
            corpus=world.corpus.name,
            reason="asked",
            salt=b"salt",
            keys=["gone.txt"],
            fingerprints=b"",
        )
        corpus = _Corpus(connection, generation)
        for count in (_FEW, _MANY):
            corpus.grow(count, analyze_first=statistics == "before the first publication")
            if count == _FEW:
                corpus.block()
            saga = corpus.group()
            if statistics == "current" or (statistics == "of few documents" and count == _FEW):
                corpus.analyze()
            read.append(corpus.blocks(saga, recipe))
            connection.execute("DELETE FROM ingest_pipeline.document WHERE saga = %s", (saga,))
    few, many = read
    # For each document of the group the planner may step down an index instead of reading a small table, and a larger
    # index may have one more level.
    assert {name: (few[name], many[name]) for name in few if many[name] > 2 * few[name] + 3 * _GROUP} == {}
