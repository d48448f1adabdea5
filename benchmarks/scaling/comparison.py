"""Comparing a source of a million documents with its catalog: the time it takes, and how little memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import perf_counter

from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.stage import stage
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Limits, Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.types import SourceObject

_TICK = Limits(plans=8000, seconds=20)
_CHANGED_IN = 100
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_FILL = """
INSERT INTO ingest_pipeline.document
    (generation, key, saga, partition, etag, size, last_modified, content_hash, recipe, chunk_count, published_version)
SELECT 'documents', key, head_saga, key, 'etag', 2000, now(), 'hash', %(recipe)s, 3, 1
FROM ingest_pipeline.generation,
    (SELECT to_char(n / 1000, 'FM000000') || '/' || to_char(n, 'FM00000000') || '.txt' AS key
     FROM generate_series(0, %(count)s - 1) AS n) AS keys
"""


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Compare documents that are all as they were, then with one of a hundred changed, in pages like the sensor's."""
    count = 100_000 if quick else 1_000_000
    with stage() as surroundings:
        source = surroundings.folder / "source"
        source.mkdir()
        settings = corpus_config(source, surroundings.folder / "lancedb", dimensions=32)
        with Database(surroundings.database()) as database:
            context = open_context(database, settings)
            step(f"comparison: {count:,} rows")
            with database.transaction() as connection:
                connection.execute(_FILL, {"recipe": context.recipe.fingerprint, "count": count})
            with database.transaction() as connection:
                connection.execute("ANALYZE ingest_pipeline.document")
            for changed in (0, count // _CHANGED_IN):
                _measure(report, context, count, changed)


def _measure(report: Report, context: IngestContext, count: int, changed: int) -> None:
    def listing(after: str = "", *_: object) -> Iterator[SourceObject]:
        first = int(after.partition("/")[2].removesuffix(".txt")) + 1 if after else 0
        for number in range(first, count):
            etag = "other" if changed and number % _CHANGED_IN == 0 else "etag"
            yield SourceObject(f"{number // 1000:06}/{number:08}.txt", etag, 2000, _NOW)

    context.source.list = listing  # type: ignore[method-assign]  # a million objects, without storing them anywhere
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    pages = differing = 0
    for page in Planner(context).pages(_TICK):
        pages += 1
        differing += len(page.puts)
    seconds = perf_counter() - start
    report.add(
        documents=count,
        differing=differing,
        seconds=round(seconds, 1),
        pages=pages,
        peak_mb_more=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
    )
