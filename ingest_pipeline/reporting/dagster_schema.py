"""The schema of Dagster's own tables in the catalog's database, which nothing else uses.

Dagster treats every table with a name such as `runs` or `alembic_version` as its own, and changes the table with
Alembic. In `public` it would find the tables of other applications. So its connections search one schema only. The
search path is set by an option of the connection, which a pooler may refuse or drop. Then it must be a setting of the
role. If neither is in force, an error is raised before anything is created.
"""

from __future__ import annotations

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.database import make_schema, search_path
from ingest_pipeline.postgres.url import parts_of, place_of, write_url

DAGSTER_SCHEMA = "ingest_pipeline_dagster"

# Without limits, one connection that is never answered would block a thread of the daemon, and so all sensors.
_LIMITS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}


def prepare_storage(url: str) -> str:
    """Create the schema of Dagster's tables if it is missing.

    Args:
        url: Url of the catalog's database, whose server must be running.

    Returns:
        The url for Dagster's storage.

    Raises:
        ConfigurationError: The schema cannot be created or cannot be put into force. At most the schema was created.
        DatabaseUnavailableError: The server stopped answering.
    """
    searching = storage_url(url)
    for _ in range(2):  # a server that was down for the first connection seems to be a pooler that refuses the option
        if _path_of(searching) == DAGSTER_SCHEMA:
            make_schema(url, DAGSTER_SCHEMA)
            return searching
        if search_path(url) == DAGSTER_SCHEMA:
            make_schema(url, DAGSTER_SCHEMA)
            return _plain(url)
    role = parts_of(url).get("user", "ROLE")
    raise ConfigurationError(
        f"Dagster's tables need a schema of their own, but the connection to {place_of(url)} drops the option "
        "`search_path`, as poolers do. Nothing was created",
        f"Run `ALTER ROLE {role} IN DATABASE {parts_of(url).get('dbname', 'DATABASE')} SET search_path = "
        f"{DAGSTER_SCHEMA}` on the server, set INGEST_DATABASE_URL to the server instead of its pooler, or name "
        "another database in the dagster.yaml of DAGSTER_HOME.",
    )


def storage_url(url: str) -> str:
    """The url for Dagster's storage, with its driver, its schema, and limits on the wait for a silent server."""
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
