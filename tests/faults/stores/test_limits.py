"""Files or connections run out: no publication is partial, and nothing is embedded twice."""

from __future__ import annotations

from urllib.parse import urlsplit

import psycopg
import pytest

from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.database import Database
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.world import World, paragraphs

_KIB = 1024


def test_a_data_file_that_does_not_fit_ends_the_run_and_keeps_the_vectors(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    before = world.head, world.texts()
    world.put("b.txt", paragraphs("beta", 60))
    outcome = Child(crash_jobs.ingest_with_little_room, world.address, 16 * _KIB).outcome()
    assert outcome.ours
    assert "table" in outcome.message
    assert (world.head, world.texts()) == before
    world.check()

    embedded = world.embeddings.embedded
    world.ingest()
    assert world.embeddings.embedded == embedded
    world.check_nothing_left()


@pytest.fixture
def crowded_url(postgres: str) -> str:
    """The url of a database whose owner may have one connection."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS crowded")
        connection.execute("DROP ROLE IF EXISTS crowded")
        connection.execute("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 1")
        connection.execute("CREATE DATABASE crowded OWNER crowded")
    parts = urlsplit(postgres)
    return f"postgresql://crowded:crowded@{parts.hostname}:{parts.port}/crowded"


@pytest.mark.promise("postgres-faults")
def test_too_many_connections_are_one_line_and_a_temporary_error(crowded_url: str) -> None:
    with psycopg.connect(crowded_url), pytest.raises(DatabaseUnavailableError, match="too many connections"):
        Database(crowded_url).open()
    with Database(crowded_url) as database, database.transaction() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_a_role_without_permission_to_create_the_schema_gets_the_grant_to_run(postgres: str, crowded_url: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("ALTER DATABASE crowded OWNER TO CURRENT_USER")
    with pytest.raises(ConfigurationError, match="Grant"):
        Database(crowded_url).open()
