"""Executes a job of a corpus in this process, as a run of the code location that Dagster's web server shows."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import PARTITION_NAME_TAG

from ingest_pipeline.cli import _settings
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.reporting.partitions import add_partitions, corpus_partitions
from ingest_pipeline.reporting.run_status import fail_dead_runs, own_process_tags
from ingest_pipeline.resources.names import DagsterNames

_REPOSITORY = "__repository__"
# The code location of `ingest-pipeline ui`, and of a workspace that names its module alone.
_LOCATION = "ingest_pipeline.definitions"


def execute(
    settings: CorpusConfig,
    instance: dg.DagsterInstance,
    run_id: str,
    job_name: str,
    ops: Mapping[str, object],
    *,
    partitions: Sequence[str] = (),
) -> dg.JobExecutionResult:
    """Execute a job in this process.

    Args:
        settings: Settings of the corpus.
        instance: Dagster's instance, which records the run.
        run_id: Id of the run.
        job_name: Name of the job.
        ops: The configuration of its ops.
        partitions: The partitions that the run materializes. Dagster shows the run at its partition if it is one.
    """
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    fail_dead_runs(instance)
    chosen = _settings.chosen_corpus()
    upstream = () if chosen is None else chosen.upstream
    job = build_definitions(_without_key(settings), upstream=upstream).resolve_job_def(job_name)
    tags = own_process_tags()
    if len(partitions) == 1:
        add_partitions(instance, corpus_partitions(DagsterNames.of(settings), settings.scheme), partitions)
        tags[PARTITION_NAME_TAG] = partitions[0]
    run = instance.create_run_for_job(
        job,
        run_id=run_id,
        run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags={**job.run_tags, **tags},
        remote_job_origin=_origin(job_name),
    )
    with _handler_of_sigterm_kept():
        return execute_run(InMemoryJob(job), run, instance)


@contextmanager
def _handler_of_sigterm_kept() -> Generator[None]:
    """Restore the handler of SIGTERM after a run.

    Dagster gives SIGTERM the handler that SIGINT had. A shell script starts its background processes with SIGINT
    ignored, so a listener could not be stopped by SIGTERM after its first run.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _origin(job_name: str) -> RemoteJobOrigin:
    """Where the web server finds the job. Without it, the run is neither on the page of the job nor on the timeline."""
    chosen = _settings.chosen_corpus()
    location = _LOCATION if chosen is None or chosen.location is None else chosen.location.name
    return RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), _REPOSITORY), job_name)


def _without_key(settings: CorpusConfig) -> CorpusConfig:
    """The settings without the key of the embedding API, which this process then has in its environment.

    Dagster records the configuration of resources.
    """
    if settings.embedding_api_key is None:
        return settings
    os.environ["OPENAI_API_KEY"] = settings.embedding_api_key
    return settings.replace(embedding_api_key=None)
