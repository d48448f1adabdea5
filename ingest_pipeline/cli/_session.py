"""What a command opens: Postgres, the corpus, its source and its embedder. Imports no Dagster."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.ingestion.context import find_corpus, open_context
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import served
from ingest_pipeline.private_folder import make_private
from ingest_pipeline.reporting.dagster_schema import prepare_storage, storage_url

STORAGE_URL = "DAGSTER_POSTGRES_URL"
DAGSTER_YAML = """\
# Dagster's own tables are in the database of the catalog, in the schema `ingest_pipeline_dagster`. `ingest-pipeline`
# creates the schema and sets the variable; its url names the driver, because a bare postgresql:// means psycopg 3 to
# SQLAlchemy, on which dagster-postgres fails.
storage:
  postgres:
    postgres_url:
      env: DAGSTER_POSTGRES_URL
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    granularity: run
    default_limit: 2  # number of runs that send requests to the embedding API at the same time
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 1800  # before a backfill's run starts, Dagster writes an event for each partition and asset
  max_runtime_seconds: 21600  # last resort for a run whose process exited before it registered itself
python_logs:
  managed_python_loggers: [ingest_pipeline]  # the engine's log records appear among the events of a run
  python_log_level: INFO
telemetry:
  enabled: false
"""
"""Written into `DAGSTER_HOME` if that folder has no dagster.yaml."""


@contextmanager
def postgres(settings: CorpusConfig) -> Generator[CorpusConfig]:
    """Yield settings with the url of a running server: the user's own, or the embedded one, while the block runs."""
    with served(settings.database_url, settings.postgres_directory) as url:
        database = Database(url)
        settings = settings.replace(database_url=database.url)
        database.open().close()
        yield settings


@contextmanager
def corpus(settings: CorpusConfig) -> Generator[Corpus]:
    """Open the corpus, which must exist.

    Raises:
        ConfigurationError: There is no such corpus yet.
    """
    with postgres(settings) as running, Database(_url(running)) as database:
        yield find_corpus(database, running)


@contextmanager
def context(settings: CorpusConfig, *, create: bool = False) -> Generator[IngestContext]:
    """Open the corpus with its source. Without `create`, nothing is created or changed, even if there is no corpus."""
    with postgres(settings) as running, Database(_url(running)) as database:
        yield open_context(database, running, create=create)


def embedder(settings: CorpusConfig, embedding: str | None) -> EmbeddingClient:
    """Create the embedder of the settings, to be used as an async context manager.

    Args:
        settings: Settings of the corpus.
        embedding: Model and dimensions of the corpus, which may differ from the settings until it is re-embedded.
    """
    return create_embedder(settings.embedder_settings, embedding)


def dagster_environment(settings: CorpusConfig) -> dict[str, str]:
    """Environment variables by which Dagster's processes find the instance, the database and the corpus.

    Raises:
        ConfigurationError: As `instance_environment`.
    """
    return {
        **instance_environment(settings),
        "INGEST_DATABASE_URL": _url(settings),
        "INGEST_SOURCE": settings.source,
        "INGEST_STATE": settings.state,
    }


def instance_environment(settings: CorpusConfig) -> dict[str, str]:
    """Environment variables by which Dagster's processes find the instance and its tables.

    Raises:
        ConfigurationError: Dagster's tables cannot have a schema of their own in that database.
    """
    home = settings.dagster_home
    make_private(home)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        configuration.write_text(DAGSTER_YAML)
    # The user's own dagster.yaml may keep Dagster's tables anywhere. Then no schema is created here.
    is_ours = STORAGE_URL in configuration.read_text()
    storage = prepare_storage(_url(settings)) if is_ours else storage_url(_url(settings))
    return {"DAGSTER_HOME": str(home), STORAGE_URL: storage}


def demo_settings(directory: Path) -> CorpusConfig:
    """The configuration of the demonstration's corpus, independent of the environment."""
    state = directory.absolute()
    environment = {"INGEST_STATE": str(state), "INGEST_SOURCE": str(state / "documents"), "INGEST_CORPUS": "demo"}
    return CorpusConfig.from_environment(environment)


def _url(settings: CorpusConfig) -> str:
    assert settings.database_url is not None  # noqa: S101  callers pass settings that `postgres` yielded
    return settings.database_url
