"""Batch jobs in Dagster: a job that submits them, and a sensor that collects their vectors."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.batch import batch_jobs
from ingest_pipeline.ingestion.batch.batch_client import BatchClient
from ingest_pipeline.orchestration.ticks import Tick, corpus_sensor, with_corpus
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.reporting.interrupts import run_interruptibly
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import counted


class BatchJobConfig(dg.Config):
    """The documents of a batch job, for the Launchpad."""

    partitions: list[str] = Field(default=[], description="Partitions. Empty: all that differ from the source.")
    confirm_recipe: bool = Field(
        default=False, description="Include documents that differ by recipe alone, however many they are."
    )


def batch_job(settings: CorpusConfig) -> dg.JobDefinition:
    """Submits the missing vectors of documents that differ to the API's Batch endpoint."""
    names = DagsterNames.of(settings)
    keys = {resource_key(names, VersionedLanceDBResource), resource_key(names, OpenAIEmbedderResource)}

    @dg.op(name=names.name("submit_batch_job"), required_resource_keys=keys)
    def submit(context: dg.OpExecutionContext, config: BatchJobConfig) -> None:
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
        tag_run_process(context.instance, context.run.run_id)
        try:
            client = BatchClient(embedder.api_settings(), run_interruptibly)
            with lancedb.ingest_context(settings) as ingest_context:
                submitted = client.submit(
                    ingest_context, config.partitions or None, confirm_recipe=config.confirm_recipe
                )
                waiting = len(batch_jobs.waiting_keys(ingest_context))
        except IngestError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.add_output_metadata({"submitted": submitted, "documents_waiting": waiting})

    @dg.job(
        name=names.name("batch_job"),
        executor_def=dg.in_process_executor,
        description="Submits texts without a vector as batch jobs. The batch sensor collects the vectors within a day.",
    )
    def job() -> None:
        submit()

    return job


def batch_sensor(
    settings: CorpusConfig, upstream: Sequence[dg.AssetKey] = (), *, running: bool = True
) -> dg.SensorDefinition:
    """Collects the vectors of batch jobs. The source sensor then requests the documents that waited for them.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
        running: Whether the sensor is on by default.
    """
    names = DagsterNames.of(settings)

    @corpus_sensor(
        settings,
        "batch_sensor",
        "Collects the vectors of batch jobs that ended. It does nothing while no batch job is open.",
        seconds=60,
        job=names.name("batch_job"),
        running=running,
    )
    def collect_batch_jobs(context: dg.SensorEvaluationContext) -> Tick:
        def tick(ingest_context: IngestContext) -> Tick:
            waiting = batch_jobs.waiting_keys(ingest_context)
            if not waiting:
                return dg.SkipReason("No batch job is open.")
            embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
            ended = BatchClient(embedder.api_settings(), run_interruptibly).collect(ingest_context)
            for one in ended:
                collected = f"{one.collected} of {counted(one.texts, 'vector')} collected"
                context.log.info(f"Batch job {one.saga}: {collected}. {one.error or ''}")
            return dg.SkipReason(
                f"{counted(len(ended), 'batch job')} ended. "
                f"{counted(len(waiting), 'document was', 'documents were')} waiting for vectors."
            )

        return with_corpus(context, settings, upstream, tick)

    return collect_batch_jobs
