"""What Postgres' errors become, and that no wait is without end."""

# ruff: noqa: PT012  what raises is often the end of a transaction's block, so the block has to stand inside

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import pytest

from ingest_pipeline.errors import ClosedError, ConfigurationError, DatabaseUnavailableError, UnavailableError
from ingest_pipeline.postgres import database as database_module
from ingest_pipeline.postgres.database import CommitStateUnknownError, Database, DatabaseConflictError
from tests.support.servers import pooler
from tests.support.servers.tcp_proxy import Direction, TcpProxy


@pytest.fixture
def proxied(database_url: str, proxy: TcpProxy) -> Generator[Database]:
    with Database(proxy.instead_of(database_url)) as database:
        yield database
        proxy.forward()


@contextmanager
def silence(database: Database, proxy: TcpProxy) -> Generator[None]:
    """Let the server be silent during the block, and wait half a second for it then, not before and not afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "_ANSWER_SECONDS", 0.5)
        patch.setattr(database._pool, "timeout", 1.0)  # pyright: ignore[reportPrivateUsage]
        proxy.deaf()
        yield
    proxy.forward()


def is_commit(block: bytes, direction: Direction) -> bool:
    return direction == "to_server" and b"COMMIT" in block


def test_opening_twice_migrates_once(database: Database) -> None:
    with Database(database.url) as again, again.transaction() as connection:
        rows = connection.execute("SELECT number FROM ingest_pipeline.migration").fetchall()
    assert [row["number"] for row in rows] == [1, 2]


def test_processes_that_open_an_empty_database_at_once_migrate_it_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    threads = [threading.Thread(target=database.open) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    identities = {database.installation for database in databases}
    for database in databases:
        database.close()
    assert len(identities) == 1


def test_connections_that_broke_together_are_replaced_together(proxied: Database, proxy: TcpProxy) -> None:
    with ExitStack() as all_out:
        for _ in range(6):
            all_out.enter_context(proxied.transaction())
    proxy.cut()
    assert proxied.installation


def test_a_database_whose_pool_was_closed_says_so(database: Database) -> None:
    pool = database._pool  # pyright: ignore[reportPrivateUsage]
    assert pool is not None
    pool.close()
    with pytest.raises(ClosedError, match="is not open"):
        assert database.installation


def test_an_exception_rolls_back(database: Database) -> None:
    with pytest.raises(KeyError), database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.installation")
        raise KeyError
    assert database.installation


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_connection_that_ends_at_commit_leaves_its_state_unknown(
    proxied: Database, proxy: TcpProxy, done: bool
) -> None:
    proxied.installation  # noqa: B018  so that there is a connection
    proxy.cut_when(is_commit, after=done)
    with pytest.raises(CommitStateUnknownError), proxied.transaction() as connection:
        connection.execute("SELECT 1")


def test_a_server_that_goes_silent_times_out(proxied: Database, proxy: TcpProxy) -> None:
    with pytest.raises(DatabaseUnavailableError), proxied.transaction() as connection, silence(proxied, proxy):
        connection.execute("SELECT 1")


@pytest.mark.promise("waits")
def test_a_server_that_goes_silent_between_two_transactions_times_out(proxied: Database, proxy: TcpProxy) -> None:
    proxied.installation  # noqa: B018  so that there is a connection
    with silence(proxied, proxy), pytest.raises(DatabaseUnavailableError):
        proxied.installation  # noqa: B018  it asks the server


def test_a_connection_that_timed_out_is_closed_at_once_and_replaced(proxied: Database, proxy: TcpProxy) -> None:
    with pytest.raises(UnavailableError), proxied.transaction() as connection:
        with silence(proxied, proxy), pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 'late'")
        assert connection.closed
    with proxied.transaction() as connection:
        assert connection.execute("SELECT 1 AS n").fetchone() == {"n": 1}


def test_a_backend_that_idled_for_too_long_is_unavailable(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError), database.transaction() as connection:
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        threading.Event().wait(0.3)
        connection.execute("SELECT 1")


@pytest.mark.promise("waits")
def test_no_transaction_may_wait_idle_or_work_without_end(database: Database) -> None:
    with database.transaction() as connection:
        for limit in ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout"):
            row = connection.execute("SELECT current_setting(%s) AS is", (limit,)).fetchone()
            assert row is not None
            assert row["is"].endswith(("s", "min")), (limit, row)


@pytest.mark.promise("waits")
def test_a_copy_whose_client_is_stopped_is_ended(database: Database) -> None:
    """It is neither idle nor does it wait for a lock."""
    with pytest.raises(DatabaseUnavailableError), database.transaction() as connection:
        connection.execute("SET LOCAL statement_timeout = '50ms'")
        with connection.cursor().copy("COPY ingest_pipeline.installation (id) FROM STDIN") as copy:
            threading.Event().wait(0.3)
            copy.write_row((UUID(int=1),))


def test_a_lock_that_is_held_for_too_long_is_unavailable(database: Database) -> None:
    with database.transaction() as holder:
        holder.execute("LOCK TABLE ingest_pipeline.generation")
        with pytest.raises(DatabaseUnavailableError, match="for too long"), database.transaction() as connection:
            connection.execute("SET LOCAL lock_timeout = '50ms'")
            connection.execute("SELECT * FROM ingest_pipeline.generation")


def test_a_serialization_failure_is_a_conflict_to_repeat(database: Database) -> None:
    with pytest.raises(DatabaseConflictError), database.transaction() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        connection.execute("SELECT * FROM ingest_pipeline.installation")
        with database.transaction() as other:
            other.execute("UPDATE ingest_pipeline.installation SET created_at = now()")
        connection.execute("UPDATE ingest_pipeline.installation SET created_at = now()")


@pytest.mark.skipif(pooler.WANTED, reason="a pooler has let the connection in before")
def test_a_server_that_admits_nobody_is_unavailable(
    postgres: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_POOL_SECONDS", 0.5)
    name = database_url.rpartition("/")[2]
    with Database(database_url) as database, psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        with pytest.raises(DatabaseUnavailableError), database.transaction():
            pass


def test_an_unreachable_server_is_named() -> None:
    with pytest.raises(DatabaseUnavailableError, match=r"127\.0\.0\.1:1/"):
        Database("postgresql://user:secret@127.0.0.1:1/nothing").open()


def test_no_message_contains_the_password() -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        Database("postgresql://user:secret@127.0.0.1:1/nothing").open()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///x", "nonsense", ""])
def test_a_malformed_postgres_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Database(url)


def test_a_role_that_may_not_create_tables_may_use_them(database_url: str) -> None:
    Database(database_url).open().close()
    place = urlsplit(database_url)
    name = f"app_{place.path.strip('/')}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA ingest_pipeline TO {name}".encode())
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA ingest_pipeline TO {name}".encode())
    with Database(place._replace(netloc=f"{name}:secret@{place.hostname}:{place.port}").geturl()) as database:
        assert database.installation


def test_opening_a_migrated_database_does_not_wait_for_the_migration_lock(database_url: str) -> None:
    Database(database_url).open().close()
    with psycopg.connect(database_url) as sleeper:
        sleeper.execute("SELECT pg_advisory_xact_lock(%s)", (database_module._MIGRATION_LOCK,))  # pyright: ignore[reportPrivateUsage]
        with Database(database_url) as database:
            assert database.installation


@pytest.mark.parametrize("statement", ["SELECT 1 / 0", "ROLLBACK", "COMMIT"])
def test_a_transaction_that_postgres_has_ended_is_not_taken_for_committed(database: Database, statement: str) -> None:
    with pytest.raises(UnavailableError, match="before its COMMIT"), database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.installation")
        with suppress(psycopg.Error):
            connection.execute(statement.encode())
