"""What a command needs running: Postgres, Dagster's instance on it, and the corpus."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from ingest_pipeline.code_location import pipeline_settings
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Database
from ingest_pipeline.database_url import parts_of, without_password, write_url
from ingest_pipeline.embedded_postgres import EmbeddedPostgres
from ingest_pipeline.errors import DatabaseUnavailableError
from ingest_pipeline.pipeline import find_corpus, open_workshop
from ingest_pipeline.preparation import Workshop
from ingest_pipeline.settings import Settings

DAGSTER_YAML = """\
# Dagster's own tables lie in the Postgres of the catalog. `ingest-pipeline` sets the variable; its scheme names the
# driver, because a bare postgresql:// means psycopg 3 to SQLAlchemy, on which dagster-postgres fails.
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

# Without them one connection that is never answered stops a thread of the daemon, and with it all sensors, for ever.
_DAGSTER_LIMITS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


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
def workshop(settings: Settings, *, create: bool = False) -> Generator[Workshop]:
    """The corpus with its source. Unless told to create it, it is left as it is, also if there is none."""
    with postgres(settings) as running, Database(_url(running)) as database:
        yield open_workshop(database, pipeline_settings(running), create=create)


def dagster_environment(settings: Settings) -> dict[str, str]:
    """The environment in which Dagster's processes find the instance, the database and the corpus."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "dagster.yaml"
    if not configuration.exists():
        configuration.write_text(DAGSTER_YAML)
    return {
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_URL": _dagster_url(_url(settings)),
        "INGEST_DATABASE_URL": _url(settings),
        "INGEST_SOURCE": settings.source,
        "INGEST_STATE": str(settings.state),
    }


@contextmanager
def instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """Dagster's instance, in this process; the settings have a database that answers.

    Raises:
        DatabaseUnavailableError: Postgres stopped answering Dagster, when the block began or within it.
    """
    os.environ.update(dagster_environment(settings))
    try:
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as opened:
            yield opened
    except (SQLAlchemyError, DagsterPostgresException) as error:
        reason = without_password((str(error).splitlines() or [type(error).__name__])[0], _url(settings))
        raise DatabaseUnavailableError(f"Dagster's own tables in Postgres cannot be used: {reason}") from error


def demo_settings(directory: Path) -> Settings:
    """Settings of the corpus that the demo makes, whatever the environment says."""
    state = directory.absolute()
    environment = {"INGEST_STATE": str(state), "INGEST_SOURCE": str(state / "documents"), "INGEST_CORPUS": "demo"}
    return Settings.from_environment(environment)


def _dagster_url(url: str) -> str:
    """The url as Dagster's storage takes it: with the driver, and with limits on a server that does not answer."""
    return write_url(_DAGSTER_LIMITS | parts_of(url), "psycopg2")


def _url(settings: Settings) -> str:
    assert settings.database_url is not None  # noqa: S101  callers pass settings that `postgres` yielded
    return settings.database_url
