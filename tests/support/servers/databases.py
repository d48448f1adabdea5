"""An empty database for a test, or for a file of them."""

from __future__ import annotations

import itertools
import os

import psycopg

from ingest_pipeline.reporting.storage import DAGSTER_SCHEMA
from tests.support.servers import pooler

TEST_RIGHTS = (
    "ALTER ROLE ingest_pipeline CREATEDB CREATEROLE",
    "ALTER ROLE ingest_pipeline SET createrole_self_grant = 'set, inherit'",
    "GRANT SET ON PARAMETER deadlock_timeout TO ingest_pipeline",
)
"""What the role of the tests' server may do, beyond what the package needs."""
_numbers = itertools.count()


def empty_database(postgres: str, entrance: str) -> str:
    """Create one.

    Args:
        postgres: The url of another database of the server.
        entrance: The same, as the package reaches it.

    Returns:
        Its url, as the package reaches it.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        if pooler.WANTED:
            # Behind a pooler the search path cannot come with the connection: the server has to know it.
            connection.execute(f'ALTER DATABASE "{name}" SET search_path = {DAGSTER_SCHEMA}'.encode())
    if pooler.WANTED:
        with psycopg.connect(f"{postgres.rpartition('/')[0]}/{name}") as connection:
            connection.execute(f"CREATE SCHEMA {DAGSTER_SCHEMA}".encode())
    return f"{entrance.rpartition('/')[0]}/{name}"


def copy_of(postgres: str, url: str) -> str:
    """Copy a database without connections, within its server; returns the url of the copy."""
    copy = f"copy_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{url.rpartition("/")[2]}"'.encode())
    return f"{url.rpartition('/')[0]}/{copy}"
