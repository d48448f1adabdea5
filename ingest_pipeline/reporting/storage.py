"""Where Dagster keeps its own tables: in a schema of the catalog's database that nothing else uses.

Dagster takes whatever tables it finds for its own, by names such as `runs` and `alembic_version`, and changes them by
Alembic. In `public` it would meet the tables of the application that the database may belong to. So its connections
search one schema only. That is an option of the connection, which a pooler may refuse or drop; then the role's own
search path has to say it, and if neither does, nothing is made.
"""

from __future__ import annotations

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.database import make_schema, search_path
from ingest_pipeline.postgres.url import parts_of, place_of, write_url

DAGSTER_SCHEMA = "ingest_pipeline_dagster"

# Without them one connection that is never answered stops a thread of the daemon, and with it all sensors, for ever.
_LIMITS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def prepare_storage(url: str) -> str:
    """Make the schema of Dagster's tables if it is missing.

    Args:
        url: Of the catalog's database, which answers.

    Returns:
        The url for Dagster's storage.

    Raises:
        ConfigurationError: The schema can be neither made nor put into force. Nothing was made, or the schema only.
        DatabaseUnavailableError: The server stopped answering.
    """
    searching = storage_url(url)
    if _path_of(searching) == DAGSTER_SCHEMA:
        make_schema(url, DAGSTER_SCHEMA)
        return searching
    if _path_of(url) == DAGSTER_SCHEMA:
        make_schema(url, DAGSTER_SCHEMA)
        return _plain(url)
    role = parts_of(url).get("user", "ROLE")
    raise ConfigurationError(
        f"Dagster's tables need a schema of their own, and the connection to {place_of(url)} drops the option "
        "`search_path`, as poolers do. Nothing was made",
        f"Run `ALTER ROLE {role} IN DATABASE {parts_of(url).get('dbname', 'DATABASE')} SET search_path = "
        f"{DAGSTER_SCHEMA}` on the server, set INGEST_DATABASE_URL to the server instead of its pooler, or name "
        "another database in the dagster.yaml of DAGSTER_HOME.",
    )


def storage_url(url: str) -> str:
    """The url as Dagster's storage takes it: with its driver, its schema, and limits on a server that is silent."""
    parts = parts_of(url)
    options = f"{parts.get('options', '')} -c search_path={DAGSTER_SCHEMA}".strip()
    return write_url({**_LIMITS, **parts, "options": options}, "psycopg2")


def _plain(url: str) -> str:
    return write_url({**_LIMITS, **parts_of(url)}, "psycopg2")


def _path_of(url: str) -> str | None:
    try:
        return search_path(url)
    except DatabaseUnavailableError:
        return None  # a pooler refuses options that it does not know
