"""What a command needs running: Postgres, Dagster's instance on it, and the corpus."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
from alembic.util import CommandError
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from ingest_pipeline.config import Settings
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.ingestion.context import find_corpus, open_context
from ingest_pipeline.orchestration.build import pipeline_settings
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.postgres.url import without_password
from ingest_pipeline.private_folder import make_private
from ingest_pipeline.reporting.storage import prepare_storage, storage_url

_STORAGE_URL = "DAGSTER_POSTGRES_URL"
DAGSTER_YAML = """\
# Dagster's own tables are in the database of the catalog, in the schema `ingest_pipeline_dagster`. `ingest-pipeline`
# makes the schema and sets the variable; its url names the driver, because a bare postgresql:// means psycopg 3 to
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
    default_limit: 2  # so many runs at once send requests to the embedding API
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 1800  # before a backfill's run starts, Dagster writes an event for each partition and asset
  max_runtime_seconds: 21600  # the last resort for a run whose process ended before it gave its name
telemetry:
  enabled: false
"""
"""What is written into `DAGSTER_HOME` if there is nothing."""


@contextmanager
def postgres(settings: Settings) -> Generator[Settings]:
    """Settings with a database url that answers: the user's, or that of the embedded server while the block runs."""
    with ExitStack() as stack:
        url = settings.database_url
        if url is None:
            server = EmbeddedPostgres(settings.state / "postgres")
            url = server.start()
            stack.callback(server.release)
        database = Database(url)
        settings = replace(settings, database_url=database.url)
        database.open().close()
        yield settings


@contextmanager
def corpus(settings: Settings) -> Generator[Corpus]:
    """The corpus, which must exist.

    Raises:
        ConfigurationError: Nothing was ever ingested into it.
    """
    with postgres(settings) as running, Database(_url(running)) as database:
        yield find_corpus(database, pipeline_settings(running))


@contextmanager
def context(settings: Settings, *, create: bool = False) -> Generator[IngestContext]:
    """The corpus with its source. Unless told to create it, it is left as it is, also if there is none."""
    with postgres(settings) as running, Database(_url(running)) as database:
        yield open_context(database, pipeline_settings(running), create=create)


def dagster_environment(settings: Settings) -> dict[str, str]:
    """The environment in which Dagster's processes find the instance, the database and the corpus.

    Raises:
        ConfigurationError: Dagster's tables cannot have a schema of their own in that database.
    """
    home = settings.dagster_home
    make_private(home)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        configuration.write_text(DAGSTER_YAML)
    # A dagster.yaml of the user's own may keep Dagster's tables anywhere; then no schema is made here.
    is_ours = _STORAGE_URL in configuration.read_text()
    storage = prepare_storage(_url(settings)) if is_ours else storage_url(_url(settings))
    return {
        "DAGSTER_HOME": str(home),
        _STORAGE_URL: storage,
        "INGEST_DATABASE_URL": _url(settings),
        "INGEST_SOURCE": settings.source,
        "INGEST_STATE": str(settings.state),
    }


@contextmanager
def instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """Dagster's instance, in this process; the settings have a database that answers.

    Raises:
        DatabaseUnavailableError: Postgres stopped answering Dagster, when the block began or within it.
        ConfigurationError: Dagster's tables would share a schema with those of another application.
    """
    os.environ.update(dagster_environment(settings))
    try:
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as opened:
            yield opened
    except CommandError as error:
        raise ConfigurationError(
            f"The dagster.yaml in {settings.dagster_home} keeps Dagster's tables beside another application's Alembic "
            f"table: {error}. Tables that Dagster made there before it failed are left there",
            "Give Dagster a database or a schema of its own in that file; deploy/dagster.yaml shows how.",
        ) from error
    except (SQLAlchemyError, DagsterPostgresException) as error:
        reason = without_password((str(error).splitlines() or [type(error).__name__])[0], _url(settings))
        raise DatabaseUnavailableError(f"Dagster's own tables in Postgres cannot be used: {reason}") from error


def demo_settings(directory: Path) -> Settings:
    """Settings of the corpus that the demo makes, whatever the environment says."""
    state = directory.absolute()
    environment = {"INGEST_STATE": str(state), "INGEST_SOURCE": str(state / "documents"), "INGEST_CORPUS": "demo"}
    return Settings.from_environment(environment)


def _url(settings: Settings) -> str:
    assert settings.database_url is not None  # noqa: S101  callers pass settings that `postgres` yielded
    return settings.database_url
