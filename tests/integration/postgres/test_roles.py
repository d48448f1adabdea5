"""The roles of docs/roles.sql: what each may do with the program, and that it may do no more."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from ingest_pipeline.errors import ConfigurationError, SchemaNewerError
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.url import parts_of, write_url
from tests.support.dagster.cli import Cli
from tests.support.servers import pooler
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import paragraphs

pytestmark = [
    pytest.mark.skipif(pooler.WANTED, reason="the pooler connects everybody as one role"),
    pytest.mark.promise("roles"),
]
ROLES_SQL = (Path(__file__).parents[3] / "docs" / "roles.sql").read_text()


@pytest.fixture
def roles(database_url: str) -> Generator[dict[str, str]]:
    """The urls of owner, writer and reader of an empty database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute(ROLES_SQL.encode())
        for role in ("owner", "writer", "reader"):
            connection.execute(f"ALTER ROLE ingest_{role} PASSWORD '{role}'".encode())
    parts = parts_of(database_url)
    yield {
        role: write_url({**parts, "user": f"ingest_{role}", "password": role}) for role in ("owner", "writer", "reader")
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        for role in ("reader", "writer", "owner"):
            connection.execute(f"DROP OWNED BY ingest_{role} CASCADE".encode())
            connection.execute(f"DROP ROLE ingest_{role}".encode())


@pytest.fixture
def migrated(roles: dict[str, str]) -> dict[str, str]:
    Database(roles["owner"]).open().close()
    return roles


def test_the_writer_does_everything_and_the_reader_reads(
    tmp_path: Path, migrated: dict[str, str], embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    writer = Cli.over(tmp_path, migrated["writer"], embeddings)
    writer.put("a.txt", paragraphs("alpha", 3))
    path = writer.put("b.txt", paragraphs("beta", 3))
    first = writer.json("ingest")
    assert (first["published"], first["problems"]) == (2, [])
    path.write_text(paragraphs("gamma", 3))
    assert writer.json("ingest")["published"] == 1
    for arguments in (
        ["rollback", "--to", str(first["version"]), "b.txt"],
        ["retry"],
        ["ingest"],
        ["maintain"],
        ["sweep"],
        ["audit", "--repair"],
        ["recover"],
    ):
        done = writer.run(*arguments)
        assert done.exit_code == 0, (arguments, done.output)

    reader = Cli(tmp_path, {**writer.environment, "INGEST_DATABASE_URL": migrated["reader"]})
    assert reader.json("status")["documents"] == 2
    assert reader.json("history")[-1]["what"] == "create"
    assert {hit["document"] for hit in reader.json("search", "alpha 1", "--limit", "2")} <= {"a.txt", "b.txt"}
    assert reader.json("search", "alpha", "--mode", "text", "--where", "key=a*")
    for arguments in (["audit"], ["sweep"], ["retry"]):
        refused = reader.run(*arguments)
        assert refused.exit_code == 2, (arguments, refused.output)
        (line,) = [line for line in refused.stderr.splitlines() if line.startswith("Error: ")]
        assert "ingest_reader may not" in line


def test_the_readers_views_show_head_and_are_read_only(migrated: dict[str, str]) -> None:
    with psycopg.connect(migrated["reader"], autocommit=True) as connection:
        for view in ("head", "current_document", "current_chunk"):
            assert connection.execute(f"TABLE ingest_pipeline.{view}".encode()).fetchall() == []
        for statement in (
            "DELETE FROM ingest_pipeline.installation",
            "UPDATE ingest_pipeline.generation SET source = NULL",
            "SELECT FROM ingest_pipeline.generation FOR UPDATE",
            "CREATE TABLE ingest_pipeline.mine ()",
            "CREATE TEMPORARY TABLE mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_the_writer_may_change_rows_and_no_table(migrated: dict[str, str]) -> None:
    with Database(migrated["writer"]) as database:
        assert database.installation
    with psycopg.connect(migrated["writer"], autocommit=True) as connection:
        for statement in (
            "CREATE TABLE ingest_pipeline.mine ()",
            "ALTER TABLE ingest_pipeline.saga DISABLE TRIGGER saga_edge",
            "DROP TABLE ingest_pipeline.hold",
            "CREATE TEMPORARY TABLE mine ()",
            "CREATE SCHEMA mine",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_only_the_owner_can_migrate_a_database(roles: dict[str, str]) -> None:
    for role in ("writer", "reader"):
        with pytest.raises(ConfigurationError, match="no right to make its tables") as refused:
            Database(roles[role]).open()
        assert "\n" not in str(refused.value)
    Database(roles["owner"]).open().close()
    Database(roles["reader"]).open().close()


def test_a_role_that_may_not_migrate_is_refused_by_a_database_of_a_later_release(migrated: dict[str, str]) -> None:
    with psycopg.connect(migrated["owner"], autocommit=True) as connection:
        connection.execute("INSERT INTO ingest_pipeline.migration (number, name) VALUES (9999, 'later')")
    with pytest.raises(SchemaNewerError):
        Database(migrated["writer"]).open()
