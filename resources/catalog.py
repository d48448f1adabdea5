"""The Postgres database of the ledger and the catalog, as a resource."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import served
from ingest_pipeline.postgres.url import database_url


class PostgresCatalogResource(ConfigurableResource[None]):
    """A Postgres server of your own, or an embedded one, which starts on demand and stops after its last user."""

    url: str | None = Field(
        default=None,
        description="postgresql://user:password@host:port/database, or libpq's key=value words. Empty: the embedded "
        "Postgres.",
    )
    embedded_directory: str = Field(
        default=".ingest_pipeline/postgres", description="Folder of the embedded Postgres, if there is no url."
    )

    @contextmanager
    def connect(self) -> Generator[Database]:
        """Open a database with a migrated schema for the duration of the block.

        Raises:
            DatabaseUnavailableError: No server answers.
            ConfigurationError: The url is malformed.
            SchemaNewerError: A later release migrated the schema.
            MissingExtraError: No url is configured and the embedded Postgres is not installed.
        """
        url = database_url(self.url, "The catalog's url") if self.url else None
        with served(url, Path(self.embedded_directory)) as running, Database(running) as database:
            yield database
