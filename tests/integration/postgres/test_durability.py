"""A server that can forget what it confirmed is refused, and every transaction commits on disk."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from ingest_pipeline.errors import ConfigurationError, NotDurableError
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.durability import REQUIRE_FSYNC
from tests.support.dagster.cli import Cli
from tests.support.servers import pooler
from tests.support.servers.embedding_server import EmbeddingServer

pytestmark = pytest.mark.promise("durable-postgres")


def with_level(database_url: str, level: str) -> Database:
    """A database whose sessions commit at a level, until they say otherwise."""
    name = database_url.rpartition("/")[2]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {level}'.encode())
    return Database(database_url)


@pytest.mark.skipif(pooler.WANTED, reason="the pooler's sessions began before the setting")
@pytest.mark.parametrize(
    ("level", "expected"), [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
def test_every_transaction_commits_on_disk_whatever_the_server_says(
    database_url: str, level: str, expected: str
) -> None:
    with with_level(database_url, level) as database, database.transaction() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": expected}


@pytest.mark.skipif(pooler.WANTED, reason="the pooler's sessions began before the setting")
def test_a_confirmed_transaction_is_in_the_log_on_disk(database_url: str, postgres: str) -> None:
    with with_level(database_url, "off") as database, psycopg.connect(postgres, autocommit=True) as other:
        for _ in range(20):
            with database.transaction() as connection:
                connection.execute("UPDATE ingest_pipeline.installation SET created_at = now()")
                written = connection.execute("SELECT pg_current_wal_insert_lsn() AS lsn").fetchone()
            assert written is not None
            answer = other.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (written["lsn"],)).fetchone()
            assert answer == (True,)


def test_a_server_that_can_forget_what_it_confirmed_is_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests' server flushes nothing and writes no full pages; see `test_embedded_postgres` for one that does."""
    for value in ("", "true", "1"):
        monkeypatch.setenv(REQUIRE_FSYNC, value)
        with pytest.raises(NotDurableError, match="runs with fsync=off and full_page_writes=off") as refused:
            Database(database_url).open()
        assert "set INGEST_REQUIRE_FSYNC to false" in str(refused.value)
    monkeypatch.setenv(REQUIRE_FSYNC, "perhaps")
    with pytest.raises(ConfigurationError, match="INGEST_REQUIRE_FSYNC is 'perhaps', which is neither true nor false"):
        Database(database_url).open()
    monkeypatch.setenv(REQUIRE_FSYNC, "False")
    Database(database_url).open().close()


def test_a_command_names_the_settings_of_the_server(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    done = cli.run("corpora", INGEST_REQUIRE_FSYNC="true")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "runs with fsync=off and full_page_writes=off" in line
    assert "secret" not in line
