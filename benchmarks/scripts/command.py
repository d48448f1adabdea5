"""A child process that does what a command does, without the start of the command: imports are not counted."""

from __future__ import annotations

import os
from collections.abc import Callable

from click.testing import CliRunner

from benchmarks.support.corpus import corpus_config
from benchmarks.support.stage import Job, serve
from ingest_pipeline.api import OpenCorpus, open_corpus
from ingest_pipeline.cli.commands.queries.status import status
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.planning.source_comparison import Limits, Planner
from ingest_pipeline.postgres.database import Database

# What a tick of the source sensor compares at most.
_TICK = Limits(plans=8000, seconds=20)


def config_of(job: Job) -> CorpusConfig:
    """The settings of the corpus of a job."""
    return corpus_config(job.source, job.lancedb, job.dimensions).replace(
        database_url=job.database, embedding_base_url=job.endpoint, embedding_api_key="none"
    )


def _ingest(job: Job, corpus: OpenCorpus) -> None:
    outcome = corpus.ingest(workers=job.workers)
    assert not outcome.failed, outcome.failed


def _status(job: Job, corpus: OpenCorpus) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INGEST_")}
    settings = {
        "INGEST_CORPUS": "documents",
        "INGEST_SOURCE": job.source,
        "INGEST_DATABASE_URL": job.database,
        "INGEST_LANCEDB_URI": job.lancedb,
        "INGEST_EMBEDDING_MODEL": corpus.config.embedding_model,
        "INGEST_EMBEDDING_DIMENSIONS": str(job.dimensions),
    }
    shown = CliRunner().invoke(status, [], env=environment | settings, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output


def _history(_: Job, corpus: OpenCorpus) -> None:
    assert corpus.history()


def _tick(job: Job, corpus: OpenCorpus) -> None:
    with Database(job.database) as database:
        next(iter(Planner(open_context(database, corpus.config)).pages(_TICK)))


_COMMANDS: dict[str, Callable[[Job, OpenCorpus], None]] = {
    "ingest": _ingest,
    "status": _status,
    "history": _history,
    "tick": _tick,
}


def work(job: Job) -> None:
    """Do what the command of the job does."""
    with open_corpus(config_of(job)) as corpus:
        _COMMANDS[job.command](job, corpus)


if __name__ == "__main__":
    serve(work)
