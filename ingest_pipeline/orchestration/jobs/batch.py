"""Batch jobs in Dagster: a job that submits them, and a sensor that collects their vectors."""

import dagster as dg
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.errors import ConfigurationError, IngestError
from ingest_pipeline.ingestion import batch_jobs
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.planning.backoff import without_final
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.reporting.interrupts import run_interruptibly
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource


class BatchJobConfig(dg.Config):
    """The documents of a batch job, for the Launchpad."""

    partitions: list[str] = Field(default=[], description="Partitions. Empty: all that differ from the source.")
    confirm_recipe: bool = Field(
        default=False, description="Include documents that differ by recipe alone, however many they are."
    )


def submit_missing(
    ingest_context: IngestContext,
    settings: OpenAISettings,
    partitions: list[str] | None = None,
    *,
    confirm_recipe: bool = False,
) -> int:
    """Submit batch jobs for the missing vectors of documents that differ; returns how many.

    Raises:
        RecipeWithheldError: Many documents differ by recipe alone. Batch jobs for the others were submitted.
    """
    guard = RecipeGuard(ingest_context, confirmed=confirm_recipe)
    if confirm_recipe:
        guard.accept()
    plans = Planner(ingest_context).plans(partitions)
    tried = without_final(ingest_context, plans)[0] if partitions is None else plans
    due, withheld = guard.split(tried, are_named=partitions is not None)

    async def run() -> int:
        async with OpenAIEmbedder(settings) as embedder:
            return len(await batch_jobs.submit(ingest_context, embedder, due))

    placed = run_interruptibly(run())
    if withheld and guard.error is not None:
        raise guard.error
    return placed


def collect_vectors(ingest_context: IngestContext, settings: OpenAISettings) -> list[batch_jobs.Collected]:
    """Collect the vectors of batch jobs that have ended."""

    async def run() -> list[batch_jobs.Collected]:
        async with OpenAIEmbedder(settings) as embedder:
            return await batch_jobs.collect(ingest_context, embedder)

    return run_interruptibly(run())


def batch_endpoint(embedder: OpenAIEmbedderResource) -> OpenAISettings:
    """Settings of the API that takes batch jobs.

    Raises:
        ConfigurationError: The local model has no batch jobs.
    """
    if embedder.is_local:
        raise ConfigurationError("The local model costs nothing and has no batch jobs", "Ingest as usual.")
    return embedder.api_settings()


def batch_job(settings: CorpusConfig) -> dg.JobDefinition:
    """Submits the missing vectors of documents that differ to the API's Batch endpoint."""
    name = settings.corpus
    keys = {resource_key(name, VersionedLanceDBResource), resource_key(name, OpenAIEmbedderResource)}

    @dg.op(name=f"{name}_submit_batch_job", required_resource_keys=keys)
    def submit(context: dg.OpExecutionContext, config: BatchJobConfig) -> None:
        lancedb = resource_of(context.resources, name, VersionedLanceDBResource)
        embedder = resource_of(context.resources, name, OpenAIEmbedderResource)
        tag_run_process(context.instance, context.run.run_id)
        try:
            endpoint = batch_endpoint(embedder)
            with lancedb.ingest_context(settings) as ingest_context:
                submitted = submit_missing(
                    ingest_context, endpoint, config.partitions or None, confirm_recipe=config.confirm_recipe
                )
                waiting = len(batch_jobs.waiting_keys(ingest_context))
        except IngestError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.add_output_metadata({"submitted": submitted, "documents_waiting": waiting})

    @dg.job(
        name=f"{name}_batch_job",
        executor_def=dg.in_process_executor,
        description="Submits texts without a vector as batch jobs. The batch sensor collects the vectors within a day.",
    )
    def job() -> None:
        submit()

    return job


def batch_sensor(settings: CorpusConfig, *, running: bool = True) -> dg.SensorDefinition:
    """Collects the vectors of batch jobs. The source sensor then requests the documents that waited for them."""
    name = settings.corpus

    @dg.sensor(
        name=f"{name}_batch_sensor",
        description="Collects the vectors of batch jobs that ended. It does nothing while no batch job is open.",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        job_name=f"{name}_batch_job",
        required_resource_keys={
            resource_key(name, VersionedLanceDBResource),
            resource_key(name, OpenAIEmbedderResource),
        },
    )
    def collect_batch_jobs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lancedb = resource_of(context.resources, name, VersionedLanceDBResource)
        try:
            with lancedb.ingest_context(settings, create=False) as ingest_context:
                waiting = batch_jobs.waiting_keys(ingest_context)
                if not waiting:
                    return dg.SkipReason("No batch job is open.")
                endpoint = batch_endpoint(resource_of(context.resources, name, OpenAIEmbedderResource))
                ended = collect_vectors(ingest_context, endpoint)
        except IngestError as error:
            return dg.SkipReason(str(error))
        for one in ended:
            context.log.info(
                f"Batch job {one.saga}: {one.collected} of {one.texts} vectors collected. {one.error or ''}"
            )
        return dg.SkipReason(f"{len(ended)} batch jobs ended. {len(waiting)} documents were waiting for them.")

    return collect_batch_jobs
