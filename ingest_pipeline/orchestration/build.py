"""Assets, checks, jobs, sensors, schedules and resources of one corpus, as one `Definitions`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from ingest_pipeline.assets.checks.corpus_checks import corpus_checks
from ingest_pipeline.assets.ingest import ingest_assets
from ingest_pipeline.assets.specs import AssetOptions
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.orchestration.event_sensor import event_sensor
from ingest_pipeline.orchestration.jobs.batch import batch_job, batch_sensor
from ingest_pipeline.orchestration.jobs.erase import erase_job
from ingest_pipeline.orchestration.jobs.gate import gate_job
from ingest_pipeline.orchestration.jobs.reembed import reembed_job
from ingest_pipeline.orchestration.jobs.rollback import rollback_job
from ingest_pipeline.orchestration.run_requests import MAX_RUNS
from ingest_pipeline.orchestration.schedules import audit_schedule, maintenance_schedule, stale_schedule
from ingest_pipeline.orchestration.sensors import recovery_sensor, source_sensor
from ingest_pipeline.orchestration.upstream import upstream_sensor
from ingest_pipeline.postgres.url import holds_password
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.head_inputs import head_inputs
from ingest_pipeline.resources.keys import CorpusResources, head_inputs_key
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.resources.source import DocumentSourceResource


class DagsterOptions(BaseModel):
    """How a corpus appears in Dagster, and which of its sensors and schedules run from the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    owners: Sequence[str] = Field(
        default=(), description="Owners of the assets: e-mail addresses, or `team:NAME`.", examples=[["team:data"]]
    )
    group: str | None = Field(
        default=None, description="Group of the assets. Default: the name of the corpus, with its key_prefix."
    )
    tags: Mapping[str, str] = Field(
        default_factory=dict[str, str], description="Tags of the assets.", examples=[{"domain": "people"}]
    )
    fresh_within_minutes: int | None = Field(
        default=None,
        ge=1,
        description="Freshness policy of CORPUS/head: Dagster reports it as failed if the corpus did not change for so "
        "long. For sources that change regularly; the check `freshness` compares with the source.",
    )
    translation: Callable[[dg.AssetSpec, str], dg.AssetSpec] | None = Field(
        default=None,
        description="Changes attributes of the assets, but not their keys. In YAML, `asset` is the last part of the "
        "key and `spec` is the spec; in Python, a function takes the spec and that part.",
    )
    upstream: Sequence[str] = Field(
        default=(),
        description="Keys of the assets that make the files of the source. When one of them is materialized, one run "
        "ingests all documents that differ, new files included.",
        examples=[["handbook_files"], ["raw/handbook"]],
    )
    embedding_pool: str = Field(
        default="embedding_api",
        description="Dagster's pool of the runs that embed. Its limit times embedding_concurrency bounds all requests.",
    )
    max_runs: int = Field(
        default=MAX_RUNS,
        ge=1,
        le=MAX_RUNS,
        description="Runs among which the source sensor shares a first ingest or a large difference, at most. The "
        "limit of the pool counts too.",
    )
    executor: Literal["in_process", "code_location"] = Field(
        default="in_process",
        description="Executor of materializations that the UI launches. `in_process` becomes the default of the whole "
        "code location and conflicts with an executor that the project names; `code_location` uses that one.",
    )
    source_sensor: bool = Field(
        default=True, description="Whether the sensor for new, changed and removed files is on from the start."
    )
    event_sensor: bool = Field(
        default=True, description="Whether the sensor of the event queue is on from the start, if `events` names one."
    )
    recovery_sensor: bool = Field(
        default=True, description="Whether the sensor that settles the sagas of dead writers is on from the start."
    )
    batch_sensor: bool = Field(
        default=True, description="Whether the sensor that collects the vectors of batch jobs is on from the start."
    )
    audit_schedule: bool = Field(
        default=False, description="Whether the hourly audit of the whole corpus is on from the start."
    )
    maintenance_schedule: bool = Field(default=True, description="Whether the hourly maintenance is on from the start.")
    stale_schedule: bool = Field(
        default=False,
        description="Whether the nightly ingestion of all that differs is on from the start. The sensor does the same "
        "all day.",
    )


def build_definitions(config: CorpusConfig, *, upstream: Sequence[str] = ()) -> dg.Definitions:
    """Build the definitions of a corpus whose database url, if there is one, is in INGEST_DATABASE_URL.

    Args:
        config: Configuration of the corpus.
        upstream: Keys of the assets that make the files of the source.
    """
    url = dg.EnvVar("INGEST_DATABASE_URL") if config.database_url else None
    options = DagsterOptions(owners=["team:data-platform"], upstream=upstream)
    resources = build_resources(config, database_url=url, database_setting="INGEST_DATABASE_URL")
    return corpus_definitions(config, resources, options)


def corpus_definitions(
    config: CorpusConfig, resources: CorpusResources | None = None, options: DagsterOptions | None = None
) -> dg.Definitions:
    """Build the assets, checks, jobs, sensors, schedules and resources of one corpus.

    All their names begin with the key prefix and the name of the corpus, so `Definitions.merge` can combine those of
    several corpora.

    Args:
        config: Configuration of the corpus.
        resources: The result of `build_resources`, with secrets as variables. Default: built from the configuration.
        options: How the corpus appears in Dagster.

    Raises:
        ConfigurationError: The configuration contains a secret, and no resources are given; or the translation of
            the options changes the key of an asset.
    """
    options = options or DagsterOptions()
    resources = resources or build_resources(config)
    names = DagsterNames.of(config)
    upstream = [dg.AssetKey.from_user_string(key) for key in options.upstream]
    assets = AssetOptions(
        options.group or names.qualified,
        upstream,
        options.owners,
        options.tags,
        options.fresh_within_minutes,
        options.translation,
    )
    ingest = ingest_assets(config, assets, options.embedding_pool)
    checks = corpus_checks(config)
    audit = audit_schedule(names, checks, running=options.audit_schedule)
    maintenance = maintenance_schedule(config, running=options.maintenance_schedule)
    job = dg.define_asset_job(
        names.ingest_job,
        selection=dg.AssetSelection.assets(*ingest.keys).without_checks(),
        executor_def=dg.in_process_executor,
        description="Brings documents up to date with the source: the chosen partitions, or all that differ.",
    )
    return dg.Definitions(
        assets=[ingest],
        asset_checks=checks,
        jobs=[
            job,
            audit.job,
            maintenance.job,
            rollback_job(config, upstream),
            erase_job(config),
            reembed_job(config, upstream),
            gate_job(config, upstream),
            batch_job(config),
        ],
        schedules=[audit, maintenance, stale_schedule(config, running=options.stale_schedule)],
        sensors=[
            source_sensor(
                config,
                options.embedding_pool,
                upstream,
                max_runs=options.max_runs,
                running=options.source_sensor,
            ),
            *([event_sensor(config, config.events, upstream, running=options.event_sensor)] if config.events else []),
            recovery_sensor(config, upstream, running=options.recovery_sensor),
            batch_sensor(config, upstream, running=options.batch_sensor),
            *([upstream_sensor(config, upstream)] if upstream else []),
        ],
        resources={**resources.by_key(config), head_inputs_key(names): head_inputs(config)},
        executor=dg.in_process_executor if options.executor == "in_process" else None,
    )


def build_resources(
    config: CorpusConfig,
    *,
    database_url: dg.EnvVar | str | None = None,
    embedding_api_key: dg.EnvVar | str | None = None,
    database_setting: str | None = None,
) -> CorpusResources:
    """Build the four resources of a corpus.

    Dagster shows the configuration of resources in its UI and writes it into its tables, so secrets are given as
    variables: `database_url=dagster.EnvVar("DATABASE_URL")`.

    Args:
        config: Configuration of the corpus.
        database_url: Url of the catalog. Default: the url of the configuration, which must contain no password.
        embedding_api_key: Key of the embedding API. Default: OPENAI_API_KEY.
        database_setting: What errors call the url. Default: the variable that `database_url` names, or the attribute.

    Raises:
        ConfigurationError: Dagster's UI would show a secret.
    """
    if database_url is None and config.database_url and holds_password(config.database_url):
        raise ConfigurationError(
            "database_url contains a password, which Dagster's UI would show",
            "Give build_resources the name of a variable: database_url=dagster.EnvVar('DATABASE_URL').",
        )
    if embedding_api_key is None and config.embedding_api_key:
        raise ConfigurationError(
            "embedding_api_key is a secret, which Dagster's UI would show",
            "Give build_resources the name of a variable: embedding_api_key=dagster.EnvVar('OPENAI_API_KEY').",
        )
    if database_setting is None and isinstance(database_url, dg.EnvVar):
        database_setting = database_url.env_var_name
    catalog = PostgresCatalogResource(
        url=database_url or config.database_url,
        setting=database_setting,
        embedded_directory=str(config.postgres_directory),
    )
    return CorpusResources(
        catalog=catalog,
        source=DocumentSourceResource(url=config.source),
        lancedb=VersionedLanceDBResource(uri=config.lancedb_uri, catalog=catalog),
        embedder=OpenAIEmbedderResource(
            model=config.embedding_model,
            dimensions=config.embedding_dimensions,
            embedder=config.user_embedder.key if config.user_embedder else None,
            base_url=config.embedding_base_url,
            api_key=embedding_api_key,
            query_prefix=config.query_prefix,
            query_fields=config.query_fields,
            document_prefix=config.document_prefix,
            document_fields=config.document_fields,
            concurrency=config.embedding_concurrency,
            padded_tokens=config.embedding_batch_tokens,
        ),
    )
