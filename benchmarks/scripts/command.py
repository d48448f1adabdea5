"""A child process that ingests a folder as `ingest-pipeline ingest --workers N` does."""

from __future__ import annotations

from benchmarks.support.endpoint import DIMENSIONS, MODEL
from benchmarks.support.stage import Job, serve
from ingest_pipeline.api import open_corpus
from ingest_pipeline.config.corpus_config import CorpusConfig


def work(job: Job) -> None:
    """Bring the corpus to what the folder holds."""
    config = CorpusConfig(
        corpus="documents",
        source=job.source,
        database_url=job.database,
        lancedb_uri=job.lancedb,
        embedding_model=MODEL,
        embedding_dimensions=DIMENSIONS,
        embedding_base_url=job.endpoint,
        embedding_api_key="none",
        max_chunks=0,
        max_tokens_per_run=0,
        max_tokens_per_day=0,
    )
    with open_corpus(config) as corpus:
        outcome = corpus.ingest(workers=job.workers)
    assert not outcome.failed, outcome.failed


if __name__ == "__main__":
    serve(work)
