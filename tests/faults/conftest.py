"""One database for all of a file's tests, each with a corpus of its own, and a disk whose power can fail."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path

import pytest

from ingest_pipeline.postgres.database import Database
from tests.support.crash.power import LoopDisk
from tests.support.servers.databases import empty_database

_names = itertools.count()


@pytest.fixture(scope="module")
def database_url(postgres: str, entrance: str) -> str:
    """A database for each would take longer."""
    return empty_database(postgres, entrance)


@pytest.fixture
def database(database: Database) -> Database:
    """The file's database, which takes each test's embedding server for one that it does not know.

    The server may have got the port of an earlier test's server, whose first answer it would not have to give again.
    """
    with database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.served_embedding")
    return database


@pytest.fixture
def corpus_name() -> str:
    return f"docs_{next(_names)}"


@pytest.fixture
def disk(tmp_path: Path) -> Generator[LoopDisk]:
    directory = tmp_path / "power"
    directory.mkdir()
    disk = LoopDisk(directory)
    try:
        disk.start()
        yield disk
    finally:
        disk.stop()
