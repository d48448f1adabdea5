"""A child process that ingests a folder with this package's engine."""

from __future__ import annotations

import asyncio

from benchmarks.endpoint import DIMENSIONS, MODEL
from benchmarks.stage import Job, serve
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.ingestion.context import PipelineSettings, open_context, plan_partitions
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.spending_limits import NO_LIMITS


async def _ingest(database: Database, job: Job) -> None:
    context = open_context(
        database, PipelineSettings("documents", job.source, job.lancedb, MODEL, DIMENSIONS, limits=NO_LIMITS)
    )
    async with OpenAIEmbedder(OpenAISettings(MODEL, DIMENSIONS, base_url=job.endpoint, api_key="none")) as embedder:
        summary = await Ingestion(context, embedder).run(plan_partitions(context))
    assert not summary.failed, summary.failed


def work(job: Job) -> None:
    """Bring the corpus to what the folder holds."""
    with Database(job.database) as database:
        asyncio.run(_ingest(database, job))


if __name__ == "__main__":
    serve(work)
