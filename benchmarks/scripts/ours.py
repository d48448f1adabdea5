"""A child process that ingests a folder with this package's engine."""

from __future__ import annotations

import asyncio

from benchmarks.support.corpus import corpus_config
from benchmarks.support.endpoint import DIMENSIONS, MODEL
from benchmarks.support.stage import Job, serve
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database


async def _ingest(database: Database, job: Job) -> None:
    context = open_context(database, corpus_config(job.source, job.lancedb))
    async with OpenAIEmbedder(OpenAISettings(MODEL, DIMENSIONS, base_url=job.endpoint, api_key="none")) as embedder:
        summary = await Ingestion(context, embedder).run(Planner(context).plans())
    assert not summary.failed, summary.failed


def work(job: Job) -> None:
    """Bring the corpus to what the folder holds."""
    with Database(job.database) as database:
        asyncio.run(_ingest(database, job))


if __name__ == "__main__":
    serve(work)
