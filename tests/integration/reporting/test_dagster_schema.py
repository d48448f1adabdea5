"""Dagster's own tables stay away from the tables of an application that uses the same database."""

from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest_pipeline.cli import _dagster, _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError, DatabaseUnavailableError
from ingest_pipeline.postgres.url import parts_of, write_url
from ingest_pipeline.reporting.dagster_schema import DAGSTER_SCHEMA, prepare_storage, storage_url
from tests.support.servers import pooler
from tests.support.servers.databases import empty_database
from tests.support.servers.tcp_proxy import Direction, TcpProxy

pytestmark = pytest.mark.skipif(
    pooler.WANTED, reason="behind a pooler the tests' databases have the search path already"
)
_APPLICATION = """
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('f00dfeed0042');
CREATE TABLE runs (id integer PRIMARY KEY, pace text);
"""
_TABLES = """
SELECT count(*) FILTER (WHERE schemaname = 'public'), count(*) FILTER (WHERE schemaname = %s) FROM pg_tables
"""


class Interrupted(TcpProxy):
    """Breaks some connections, as a server that is restarted does."""

    left = 0

    def _pass_on(self, block: bytes, direction: Direction, connection: Any, sink: socket.socket) -> None:
        if self.left:
            self.left -= 1
            raise ConnectionResetError
        super()._pass_on(block, direction, connection, sink)


class Refusing(TcpProxy):
    """Refuses connections that ask for a search path, as PgBouncer does."""

    def _pass_on(self, block: bytes, direction: Direction, connection: Any, sink: socket.socket) -> None:
        if b"search_path=" in block:
            raise ConnectionRefusedError
        super()._pass_on(block, direction, connection, sink)


@pytest.fixture
def refusing(postgres: str) -> Generator[TcpProxy]:
    with Refusing("127.0.0.1", int(parts_of(postgres)["port"])) as proxy:
        yield proxy


@pytest.fixture
def database_url(postgres: str, entrance: str) -> str:
    """The url of an empty database."""
    return empty_database(postgres, entrance)


@pytest.fixture
def settings(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> CorpusConfig:
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "INGEST_DATABASE_URL", "INGEST_SOURCE", "INGEST_STATE"):
        monkeypatch.setenv(name, "")  # opening an instance sets them
    return CorpusConfig.from_environment({"INGEST_STATE": str(tmp_path), "INGEST_DATABASE_URL": database_url})


def tables(database_url: str) -> tuple[int, int]:
    """Tables in `public`, and in Dagster's schema."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(_TABLES, (DAGSTER_SCHEMA,)).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


@pytest.mark.promise("binding")
def test_dagsters_tables_do_not_touch_those_of_an_application(settings: CorpusConfig, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(_APPLICATION)
    for _ in range(2):
        with _session.postgres(settings) as running, _dagster.instance(running) as instance:
            instance.add_dynamic_partitions("docs_documents", ["a.txt"])
            assert instance.get_runs_count() == 0
            instance.optimize_for_webserver(statement_timeout=5000, pool_recycle=60, max_overflow=2)
            assert instance.get_dynamic_partitions("docs_documents") == ["a.txt"]
    public, dagsters = tables(database_url)
    assert public == 2
    assert dagsters > 20
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("f00dfeed0042",)]


@pytest.mark.parametrize("stamped", [True, False])
def test_tables_whose_creation_died_halfway_are_completed(
    settings: CorpusConfig, database_url: str, *, stamped: bool
) -> None:
    with _session.postgres(settings) as running, _dagster.instance(running) as instance:
        assert instance.get_runs_count() == 0
    whole = tables(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(f"DROP TABLE {DAGSTER_SCHEMA}.dynamic_partitions, {DAGSTER_SCHEMA}.pending_steps".encode())
        if not stamped:
            connection.execute(f"DROP TABLE {DAGSTER_SCHEMA}.alembic_version".encode())
    with _session.postgres(settings) as running, _dagster.instance(running) as instance:
        instance.add_dynamic_partitions("docs_documents", ["a.txt"])
        assert instance.get_dynamic_partitions("docs_documents") == ["a.txt"]
    assert tables(database_url) == whole


def test_an_instance_may_be_upgraded_beside_an_applications_migrations(
    settings: CorpusConfig, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(_APPLICATION)
    with _session.postgres(settings) as running, _dagster.instance(running) as instance:
        instance.upgrade()
    assert tables(database_url)[0] == 2


def test_a_dagster_yaml_that_shares_an_applications_schema_is_one_line(
    settings: CorpusConfig, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE alembic_version AS SELECT 'f00dfeed0042' AS version_num")
    settings.dagster_home.mkdir(parents=True)
    shared = write_url(parts_of(database_url), "psycopg2")
    (settings.dagster_home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{shared}'}}}}")
    with (
        _session.postgres(settings) as running,
        pytest.raises(ConfigurationError, match="of its own") as refused,
        _dagster.instance(running),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_options_of_the_url_stay_in_force(database_url: str) -> None:
    url = write_url({**parts_of(database_url), "options": "-c statement_timeout=1234"})
    options = parts_of(storage_url(url).replace("+psycopg2", ""))["options"]
    assert options == f"-c statement_timeout=1234 -c search_path={DAGSTER_SCHEMA}"


def test_a_server_that_is_down_for_a_moment_is_not_taken_for_a_pooler(database_url: str) -> None:
    with Interrupted("127.0.0.1", int(parts_of(database_url)["port"])) as proxy:
        through = write_url({**parts_of(database_url), "port": str(proxy.port)})
        proxy.left = 1
        assert prepare_storage(through) == storage_url(through)
        proxy.left = 100
        with pytest.raises(DatabaseUnavailableError):
            prepare_storage(through)


@pytest.mark.promise("binding")
def test_a_pooler_that_drops_the_search_path_is_refused_before_anything_is_created(
    settings: CorpusConfig, database_url: str, refusing: TcpProxy
) -> None:
    through = write_url({**parts_of(database_url), "port": str(refusing.port)})
    with _session.postgres(settings.replace(database_url=through)) as running:
        with pytest.raises(ConfigurationError, match="ALTER ROLE") as refused, _dagster.instance(running):
            pass
        assert "\n" not in str(refused.value)
        assert tables(database_url) == (0, 0)
        with psycopg.connect(database_url, autocommit=True) as connection:
            role = parts_of(database_url)["user"]
            name = parts_of(database_url)["dbname"]
            connection.execute(f'ALTER ROLE "{role}" IN DATABASE "{name}" SET search_path = {DAGSTER_SCHEMA}'.encode())
        with _dagster.instance(running) as instance:
            assert instance.get_runs_count() == 0
    assert tables(database_url)[0] == 0
