"""An empty database for a test, or for a file of them."""

from __future__ import annotations

import fcntl
import itertools
import os
import subprocess
from pathlib import Path

import psycopg

from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from ingest_pipeline.reporting.dagster_schema import DAGSTER_SCHEMA
from tests.support.servers import pooler

TEST_RIGHTS = (
    "ALTER ROLE ingest_pipeline CREATEDB CREATEROLE",
    "ALTER ROLE ingest_pipeline SET createrole_self_grant = 'set, inherit'",
    "GRANT SET ON PARAMETER deadlock_timeout TO ingest_pipeline",
    # No test cuts the power of the machine, which is all that a sync guards against.
    "ALTER SYSTEM SET fsync = off",
)
"""Statements for the tests' server: permissions of its role beyond those that the package needs, and no waits."""
SMALL_DATABASES = (
    # It would visit each of hundreds of databases every minute.
    "ALTER SYSTEM SET autovacuum = off",
    "ALTER SYSTEM SET full_page_writes = off",
    "ALTER SYSTEM SET max_wal_size = '256MB'",
)
"""Further statements for a server with many small databases that live for seconds."""
NEW_SERVER = (*TEST_RIGHTS, *SMALL_DATABASES)
"""The statements for a server of the test run."""
_CAN_HASH_ONCE = 160_000
_UNUSED = """
SELECT datname FROM pg_database d
WHERE datname = ANY(%s) AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname)
"""
_numbers = itertools.count()
_ended: set[str] = set()


def hash_password_once(url: str) -> None:
    """Let each connection hash the role's random password once instead of 4,096 times, which takes 2 ms."""
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.info.server_version >= _CAN_HASH_ONCE:
            connection.execute("SET scram_iterations = 1")
            connection.execute(f"ALTER ROLE ingest_pipeline PASSWORD '{connection.info.password}'".encode())


def empty_database(postgres: str, entrance: str) -> str:
    """Create an empty database.

    Args:
        postgres: The url of another database of the server.
        entrance: The url of the same database, through a pooler if there is one.

    Returns:
        The url of the new database, through the same pooler.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        if pooler.WANTED:
            # Behind a pooler the connection cannot set the search path, so it is a setting of the database.
            connection.execute(f'ALTER DATABASE "{name}" SET search_path = {DAGSTER_SCHEMA}'.encode())
    if pooler.WANTED:
        with psycopg.connect(f"{postgres.rpartition('/')[0]}/{name}") as connection:
            connection.execute(f"CREATE SCHEMA {DAGSTER_SCHEMA}".encode())
    return f"{entrance.rpartition('/')[0]}/{name}"


def copy_new_server(template: Path, folder: Path) -> None:
    """Copy the files of a new server, which the first process of a test run makes: that takes a second.

    Args:
        template: The files that all processes of the run copy.
        folder: Folder of the copy.
    """
    with template.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            made = template.with_suffix(".made")
            server = EmbeddedPostgres(made, prepare=NEW_SERVER)
            server.start()
            server.release()
            (made / "port").unlink()
            made.rename(template)
    subprocess.run(["cp", "-a", template, folder], check=True)


def is_copy(url: str) -> bool:
    """Whether `copy_of` made the database."""
    return "/copy_" in url


def has_ended(url: str) -> None:
    """Note that no test needs a database any more. The next `copy_of` drops it, unless something is connected to it."""
    _ended.add(url.rpartition("/")[2])


def copy_of(postgres: str, url: str) -> str:
    """Copy a database with the package's tables, without connections, within its server; returns the url of the copy.

    The copy is another installation, as if its tables had been created in it.
    """
    copy = f"copy_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        for (name,) in connection.execute(_UNUSED, [[*_ended]]).fetchall():
            connection.execute(f'DROP DATABASE "{name}"'.encode())
            _ended.discard(name)
        # Copying the files takes less CPU than writing the pages to the log.
        connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{url.rpartition("/")[2]}" STRATEGY file_copy'.encode())
    with psycopg.connect(f"{postgres.rpartition('/')[0]}/{copy}") as connection:
        connection.execute("UPDATE ingest_pipeline.installation SET id = gen_random_uuid(), created_at = now()")
    return f"{url.rpartition('/')[0]}/{copy}"
