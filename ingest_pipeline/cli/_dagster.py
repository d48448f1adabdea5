"""Dagster's instance on the database of the catalog. Imported only by commands that launch a run or query Dagster."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
from alembic.util import CommandError
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ingest_pipeline.cli._session import STORAGE_URL, dagster_environment
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.database import first_line
from ingest_pipeline.postgres.url import without_password
from ingest_pipeline.reporting.dagster_tables import complete_tables

FAULTS = (SQLAlchemyError, DagsterPostgresException)
"""What Dagster raises if its tables cannot be used."""


@contextmanager
def instance(settings: CorpusConfig) -> Generator[dg.DagsterInstance]:
    """Open Dagster's instance in this process.

    Args:
        settings: As `_session.postgres` yields them.

    Raises:
        DatabaseUnavailableError: Postgres stopped answering Dagster, when the block began or within it.
        ConfigurationError: Dagster's tables would share a schema with those of another application.
    """
    environment = dagster_environment(settings)
    os.environ.update(environment)
    complete_tables(environment[STORAGE_URL])
    try:
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as opened:
            yield opened
    except CommandError as error:
        raise ConfigurationError(
            f"The dagster.yaml in {settings.dagster_home} keeps Dagster's tables beside another application's Alembic "
            f"table: {error}. Tables that Dagster created there before it failed were not removed",
            "Give Dagster a database or a schema of its own in that file; deploy/dagster.yaml shows how.",
        ) from error
    except FAULTS as error:
        reason = without_password(reason_of(error), settings.database_url or "")
        raise DatabaseUnavailableError(f"Dagster's own tables in Postgres cannot be used: {reason}") from error


def reason_of(error: Exception) -> str:
    """The first line of what the driver says, without the driver's name. It may quote the url."""
    return first_line(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
