"""The publish step, from lock to unlock, in small and large tables; next to LanceDB's merge_insert of the same rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.data.filling import document_key, fill
from benchmarks.data.texts import write_document
from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import MODEL, Endpoint, endpoint
from benchmarks.support.stage import Stage, stage
from ingest_pipeline import failpoints
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database

_DIMENSIONS = 32
_DOCUMENT_BYTES = 72_000  # about a hundred chunks
_PUBLICATIONS = 30
_MERGES = 5
_SMALLEST_CHUNKS = 50


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Publish into tables of 10,000, 100,000 and, unless in a hurry, a million rows."""
    sizes = [10_000, 100_000] if quick else [10_000, 100_000, 1_000_000]
    with stage() as surroundings, endpoint(0, _DIMENSIONS) as server:
        for rows in sizes:
            step(f"publish: {rows:,} rows")
            _measure(report, surroundings, server, rows)


def run_rows(report: Report, step: Callable[[str], None], *, quick: bool, rows: int) -> None:  # noqa: ARG001  one size
    """Publish into a table of so many rows."""
    with stage() as surroundings, endpoint(0, _DIMENSIONS) as server:
        step(f"publish: {rows:,} rows")
        _measure(report, surroundings, server, rows)


def _measure(report: Report, surroundings: Stage, server: Endpoint, rows: int) -> None:
    folder = surroundings.folder / f"publish-{rows}"
    source = folder / "source"
    source.mkdir(parents=True)
    settings = corpus_config(source, folder / "lancedb", _DIMENSIONS)
    with Database(surroundings.database()) as database:
        context = open_context(database, settings)
        fill(context.corpus, rows, _DIMENSIONS)
        keys = [document_key(number * (rows // 100 // _PUBLICATIONS)) for number in range(_PUBLICATIONS)]
        locked = asyncio.run(_replace(context, server, source, keys))
        merged = merge_times(settings, context, keys[:_MERGES])
    report.add(
        rows=rows,
        publish_p50_ms=round(1000 * median(locked), 1),
        publish_p99_ms=round(1000 * quantiles(locked, n=100, method="inclusive")[-1], 1),
        merge_insert_p50_ms=round(1000 * median(merged), 1),
        publications=len(locked),
        merges=len(merged),
    )


async def _replace(context: IngestContext, server: Endpoint, source: Path, keys: Sequence[str]) -> list[float]:
    """Replace documents one by one through the engine; returns how long each held the lock, seconds."""
    settings = OpenAISettings(MODEL, _DIMENSIONS, base_url=server.base_url, api_key="none")
    with lock_times() as times:
        async with OpenAIEmbedder(settings) as embedder:
            for key in keys:
                write_document(source / key, _DOCUMENT_BYTES)
                summary = await Ingestion(context, embedder).run(Planner(context).plans([key]))
                assert summary.publications[0].documents[0].chunks > _SMALLEST_CHUNKS
    assert len(times) == len(keys)
    return times


@contextmanager
def lock_times() -> Generator[list[float]]:
    """Seconds from each taking of a corpus' row lock to the end of its COMMIT."""
    times: list[float] = []
    taken: list[float] = []

    def note(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.LOCK_TAKEN, "after"):
            taken.append(perf_counter())
        elif (boundary, side) == (Boundary.COMMIT, "after") and taken:
            times.append(perf_counter() - taken.pop())

    failpoints.install(note)
    try:
        yield times
    finally:
        failpoints.install(None)


def merge_times(settings: CorpusConfig, context: IngestContext, keys: Sequence[str]) -> list[float]:
    """Replace the same documents' rows in the same table with LanceDB's own merge; seconds of each."""
    head = context.corpus.head().head_version
    table = lancedb.connect(settings.lancedb_uri).open_table("documents")
    times: list[float] = []
    for key in keys:
        rows = context.corpus.table.rows(head, table.schema.names, one_of("document", [key]))
        vectors = pa.array(np.random.default_rng(0).standard_normal(rows.num_rows * _DIMENSIONS, dtype=np.float32))
        place = rows.schema.get_field_index("vector")
        changed = rows.set_column(
            place, rows.schema.field(place), pa.FixedSizeListArray.from_arrays(vectors, _DIMENSIONS)
        )
        start = perf_counter()
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.when_not_matched_by_source_delete(one_of("document", [key])).execute(changed)
        times.append(perf_counter() - start)
    return times
