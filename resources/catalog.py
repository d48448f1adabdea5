"""The Postgres database of the ledger and the catalog, as a resource."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.config.origin import ENVIRONMENT, Origin
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import served
from ingest_pipeline.postgres.url import database_url

_OPTION = "database_url"
_VARIABLE = "INGEST_DATABASE_URL"


class PostgresCatalogResource(ConfigurableResource[None]):
    """A Postgres server of your own, or an embedded one, which starts on demand and stops after its last user."""

    url: str | None = Field(
        default=None,
        description="postgresql://user:password@host:port/database, or libpq's key=value words. Empty: the embedded "
        "Postgres.",
    )
    setting: str | None = Field(
        default=None,
        description="Name of the variable with the url, for the texts of errors. Empty: they name the attribute "
        "`database_url`.",
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
        origin = ENVIRONMENT if self.setting == _VARIABLE else Origin(references={_OPTION: self.setting or _OPTION})
        with origin.errors():
            url = database_url(self.url, origin.setting(_OPTION)) if self.url else None
            with served(url, Path(self.embedded_directory)) as running, Database(running) as database:
                yield database
