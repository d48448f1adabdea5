"""Assets, job, sensors and resources of one corpus, tied together."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from ingest_pipeline.assets.checks import corpus_checks
from ingest_pipeline.assets.ingest import ingest_assets
from ingest_pipeline.config import Settings
from ingest_pipeline.ingestion.context import PipelineSettings
from ingest_pipeline.orchestration.jobs.batch import batch_job, batch_sensor
from ingest_pipeline.orchestration.jobs.reembed import reembed_job
from ingest_pipeline.orchestration.jobs.rollback import rollback_job
from ingest_pipeline.orchestration.schedules import audit_schedule, maintenance_schedule, stale_schedule
from ingest_pipeline.orchestration.sensors import recovery_sensor, source_sensor
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import CorpusResources
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.source import DocumentSourceResource


@dataclass(frozen=True, slots=True)
class DefinitionOptions:
    """How a corpus looks in Dagster, and what of it is switched on from the start."""

    owners: Sequence[str] = ("team:data-platform",)
    group: str | None = None
    """None: named as the corpus."""
    pool: str = "embedding_api"
    """Of runs that send requests to the embedding API."""
    executor: dg.ExecutorDefinition | None = dg.in_process_executor
    """The code location's default. None: leave it to the others in the location."""
    source_sensor: bool = True
    recovery_sensor: bool = True
    batch_sensor: bool = True
    audit_schedule: bool = False
    maintenance_schedule: bool = True
    stale_schedule: bool = False


def pipeline_settings(settings: Settings) -> PipelineSettings:
    """The engine's part of the settings."""
    return PipelineSettings(
        settings.corpus,
        settings.source,
        settings.lancedb_uri,
        settings.embedding_model,
        settings.embedding_dimensions,
        settings.chunk_size,
        settings.chunk_overlap,
        settings.partition_by,
        settings.include,
        settings.exclude,
        settings.max_bytes,
        settings.min_age_seconds,
        settings.prices,
        settings.retention,
        settings.limits,
        settings.follow_links,
        settings.on_unreadable,
        settings.encoding,
    )


def job_name(corpus: str) -> str:
    """The job that ingests a corpus."""
    return f"{corpus}_ingest_job"


def build_definitions(settings: Settings) -> dg.Definitions:
    """The definitions of the corpus that the environment describes."""
    return corpus_definitions(pipeline_settings(settings), build_resources(settings))


def corpus_definitions(
    pipeline: PipelineSettings, resources: CorpusResources, options: DefinitionOptions | None = None
) -> dg.Definitions:
    """Assets, checks, jobs, sensors, schedules and resources of one corpus.

    All their names begin with the corpus', so `Definitions.merge` takes those of several corpora.
    """
    options = options or DefinitionOptions()
    ingest = ingest_assets(pipeline, options.owners, options.group or pipeline.corpus, options.pool)
    checks = corpus_checks(pipeline)
    audit = audit_schedule(pipeline.corpus, checks, running=options.audit_schedule)
    maintenance = maintenance_schedule(pipeline, running=options.maintenance_schedule)
    job = dg.define_asset_job(
        job_name(pipeline.corpus),
        selection=dg.AssetSelection.assets(*ingest.keys).without_checks(),
        executor_def=dg.in_process_executor,
        description="Brings documents to what the source holds now: chosen partitions, or all that differ.",
    )
    return dg.Definitions(
        assets=[ingest],
        asset_checks=checks,
        jobs=[job, audit.job, maintenance.job, rollback_job(pipeline), reembed_job(pipeline), batch_job(pipeline)],
        schedules=[audit, maintenance, stale_schedule(pipeline, job.name, running=options.stale_schedule)],
        sensors=[
            source_sensor(pipeline, job.name, options.pool, running=options.source_sensor),
            recovery_sensor(pipeline, job.name, running=options.recovery_sensor),
            batch_sensor(pipeline, running=options.batch_sensor),
        ],
        resources=resources.by_key(pipeline.corpus),
        executor=options.executor,
    )


def build_resources(settings: Settings) -> CorpusResources:
    """The four resources, with the environment's values as what the Launchpad shows first."""
    catalog = PostgresCatalogResource(
        url=dg.EnvVar("INGEST_DATABASE_URL") if settings.database_url else None,
        embedded_directory=str(settings.state / "postgres"),
    )
    return CorpusResources(
        catalog=catalog,
        source=DocumentSourceResource(url=settings.source),
        lancedb=VersionedLanceDBResource(uri=settings.lancedb_uri, catalog=catalog),
        embedder=OpenAIEmbedderResource(model=settings.embedding_model, dimensions=settings.embedding_dimensions),
    )
