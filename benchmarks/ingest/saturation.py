"""How much of what an endpoint can give one process takes: first ingests under different limits on requests at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from urllib.request import urlopen

from benchmarks.data.texts import write_documents
from benchmarks.ingest.first_ingest import LATENCY
from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import DIMENSIONS, MODEL, endpoint
from benchmarks.support.stage import stage
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database

# Seconds of latency, and requests at once. The last is nearer to what an API takes for so many texts.
_CASES = [(LATENCY, 1), (LATENCY, 2), (LATENCY, 4), (LATENCY, 16), (0.4, 16)]


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest 10 MB under each limit; 2 MB in a hurry."""
    with stage() as surroundings:
        source = surroundings.folder / "source"
        write_documents(source, 40 if quick else 200, 50_000)
        for latency, limit in _CASES:
            step(f"saturation: {limit} requests at once")
            database = surroundings.database()
            table = str(surroundings.folder / database.rpartition("/")[2])
            with endpoint(latency) as server:
                seconds = asyncio.run(_ingest(database, source, table, server.base_url, limit))
                requests, embedded = server.requests(), server.embedded()
                alone = median(_ask(server.base_url) for _ in range(20))
            report.add(
                latency_ms=round(1000 * latency),
                at_once=limit,
                seconds=round(seconds, 2),
                requests=requests,
                texts_a_second=round(embedded / seconds),
                # By a client that does nothing but ask, with as many requests under way from first to last.
                of_what_could_be_had=f"{requests * alone / (seconds * limit):.2f}",
            )


def _ask(base_url: str) -> float:
    """Seconds from one request to all of its answer, at a client that does not look at it."""
    body = json.dumps(
        {"model": MODEL, "input": [str(number) * 160 for number in range(128)], "encoding_format": "base64"}
    )
    start = perf_counter()
    with urlopen(f"{base_url}/embeddings", body.encode()) as answer:  # noqa: S310  our own http address
        answer.read()
    return perf_counter() - start


async def _ingest(url: str, source: Path, table: str, base_url: str, limit: int) -> float:
    """Seconds that it took."""
    endpoint_settings = OpenAISettings(MODEL, DIMENSIONS, base_url=base_url, api_key="none", concurrency=limit)
    with Database(url) as database:
        context = open_context(database, corpus_config(source, table))
        async with OpenAIEmbedder(endpoint_settings) as embedder:
            start = perf_counter()
            summary = await Ingestion(context, embedder).run(Planner(context).plans())
            seconds = perf_counter() - start
    assert not summary.failed, summary.failed
    return seconds
