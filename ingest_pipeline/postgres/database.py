"""Connections to Postgres, transactions, schema migrations and the translation of the driver's errors."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from ingest_pipeline.errors import (
    ClosedError,
    ConfigurationError,
    DatabaseUnavailableError,
    FencedError,
    SchemaNewerError,
    UnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.durability import transaction_settings
from ingest_pipeline.postgres.sql import Migration, migrations, query
from ingest_pipeline.postgres.url import database_url, parts_of, place_of, without_password

Connection = psycopg.Connection[Any]
"""A connection whose rows are dictionaries, unless a cursor sets another row factory."""
T = TypeVar("T")

_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "prepare_threshold": None,  # a transaction-mode pooler loses server-side statements
}
# Key of the advisory lock of schema migrations. All applications of a database share the space of these keys.
_MIGRATION_LOCK = 7_264_110_513
# Longer than the server's limits, which `limit_waiting` sets: the server times out first and reports the reason.
_ANSWER_SECONDS = 150.0
# Limit for the check of an idle connection, which waits for no lock.
_CHECK_SECONDS = 5.0
_POOL_SECONDS = 10.0
# SQLSTATE prefixes after which COMMIT certainly failed. After any other error the outcome is unknown: even 57P01 may
# follow a COMMIT that took effect, when a server that shuts down stops waiting for its standby.
_COMMIT_REFUSED = ("23", "40001", "40P01")


class _BoundedConnection(psycopg.Connection[Any]):
    """A connection that times out when the server neither answers nor closes, for example behind a proxy that hangs."""

    _idle = False

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        longest = min(_CHECK_SECONDS, _ANSWER_SECONDS) if self._idle else _ANSWER_SECONDS
        try:
            return super().wait(gen, interval, longest if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                self.pgconn.finish()  # otherwise the rollback would wait for the same time again
            raise

    def check(self) -> None:
        """Check that the server answers, before the pool hands out the connection.

        Raises:
            psycopg.Error: The server does not answer.
        """
        self._idle = True
        try:
            ConnectionPool.check_connection(self)
        finally:
            self._idle = False


class CommitStateUnknownError(UnavailableError):
    """The connection ended during COMMIT, so that the transaction may or may not have been committed.

    To settle the outcome, take the row lock again and read the saga's state.
    """

    remedy = "Run again: whether it happened is found out then."


class DatabaseConflictError(UnavailableError):
    """Postgres aborted this transaction because of a deadlock or a serialization failure."""

    remedy = "Nothing was changed. Run again."


class Database:
    """A pool of connections to one migrated database.

    Args:
        url: ``postgresql://user:password@host:port/database``, as `database_url` reads it.

    Raises:
        ConfigurationError: The url is malformed.
    """

    def __init__(self, url: str) -> None:
        self.url = database_url(url)
        self._pool: ConnectionPool[_BoundedConnection] | None = None
        self._settings: LiteralString = query("limit_waiting")

    def open(self) -> Self:
        """Connect, and apply the missing schema migrations.

        Raises:
            DatabaseUnavailableError: No server answers at the url.
            SchemaNewerError: The database was migrated by a later release.
            NotDurableError: The server can lose what it confirms when the power fails.
            ConfigurationError: The role may not create the missing tables, or may not use the existing ones.
        """
        with translated(self.url):
            first: Connection = _BoundedConnection.connect(self.url, **_CONNECT)
            with first as connection:
                connection.row_factory = dict_row
                self._settings = transaction_settings(connection, self.url)
                _migrate(connection, self.url)
        self._pool = pool = ConnectionPool(
            self.url,
            connection_class=_BoundedConnection,
            kwargs={"row_factory": dict_row, **_CONNECT},
            min_size=0,
            max_size=8,
            timeout=_POOL_SECONDS,
            check=lambda connection: _check(connection, pool),
            open=True,
        )
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        return self

    def close(self) -> None:
        """Close the pool. The object can be opened again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Generator[Connection]:
        """Run one transaction: commit when the block ends, roll back when it raises.

        Raises:
            ClosedError: The database is not open.
            CommitStateUnknownError: The connection ended during COMMIT.
            DatabaseUnavailableError: No connection was available, or it ended before COMMIT was sent.
            DatabaseConflictError: Postgres aborted the transaction; a retry may succeed.
        """
        if self._pool is None or self._pool.closed:
            raise ClosedError(f"The connection to Postgres at {place_of(self.url)} is not open")
        with translated(self.url), self._pool.connection() as connection:
            connection.execute(self._settings)
            yield connection
            with boundary(Boundary.COMMIT):
                _commit(connection)

    def rewrite_tables(self, names: Sequence[str]) -> list[str]:
        """Rewrite tables, so that their files have no deleted rows any more, and write everything to the disk.

        Nothing can read a table while it is rewritten. What this role may not do is skipped. The log of the server and
        its backups still have the rows.

        Args:
            names: The tables, each with its schema.

        Returns:
            What was skipped and why, one line each.

        Raises:
            DatabaseUnavailableError: The server does not answer, or another transaction kept a table for two minutes.
        """
        skipped: list[str] = []
        with translated(self.url), psycopg.connect(self.url, autocommit=True, **_CONNECT) as connection:
            connection.add_notice_handler(lambda notice: skipped.append(notice.message_primary or ""))
            connection.execute("SET lock_timeout = '120s'")
            with boundary(Boundary.TABLES_REWRITTEN):
                for name in names:
                    # Statistics have values of the rows, so they are gathered again, and rewritten last.
                    connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.Identifier(*name.split("."))))
                connection.execute("VACUUM (FULL) pg_catalog.pg_statistic")
                try:
                    connection.execute("CHECKPOINT")
                except psycopg.errors.InsufficientPrivilege as error:
                    skipped.append(first_line(error))
        return skipped

    @property
    def installation(self) -> UUID:
        """The identity that this database gives to the tables it owns."""
        with self.transaction() as connection:
            row = connection.execute("SELECT id FROM ingest_pipeline.installation").fetchone()
        assert row is not None  # noqa: S101  the first migration inserts it
        return UUID(str(row["id"]))


def search_path(url: str) -> str:
    """Return the server's search path: the schemas in which a connection looks for tables.

    Raises:
        DatabaseUnavailableError: No server answers at the url, or a pooler rejects an option of the url.
    """
    address = database_url(url)
    with translated(address), _BoundedConnection.connect(address, **_CONNECT) as connection:
        row = connection.execute("SELECT current_setting('search_path')").fetchone()
    return "" if row is None else str(row[0])


def make_schema(url: str, name: LiteralString) -> None:
    """Create a schema if there is none of that name.

    Raises:
        DatabaseUnavailableError: No server answers at the url.
        ConfigurationError: The user may not create the schema.
    """
    address = database_url(url)
    with translated(address), _BoundedConnection.connect(address, **_CONNECT) as connection:
        connection.row_factory = dict_row
        if _exists(connection, f"to_regnamespace('{name}')"):
            return  # CREATE SCHEMA IF NOT EXISTS requires a privilege on the database even if the schema exists
        try:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
        except psycopg.errors.UniqueViolation:
            return  # another process created it at the same time
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"The user of the database at {place_of(address)} may not create the schema {name}: "
                f"{first_line(error)}",
                f"Grant that user CREATE on the database, or make the schema and grant that user all on it: "
                f"CREATE SCHEMA {name}; GRANT ALL ON SCHEMA {name} TO ...",
            ) from error


def _check(connection: _BoundedConnection, pool: ConnectionPool[_BoundedConnection]) -> None:
    try:
        connection.check()
    except psycopg.Error:
        # The other connections are most likely broken too. Without `drain` the pool would check them one by one, with
        # a growing pause after each failure.
        pool.drain()
        raise


def is_under_way(connection: Connection) -> bool:
    """Whether a transaction is open and none of its statements has failed."""
    return connection.info.transaction_status is TransactionStatus.INTRANS


def wait_for_reader(connection: Connection) -> None:
    """Let a transaction that only reads be idle for ten minutes, while its rows are used."""
    connection.execute(query("wait_for_reader"))


def keepalive(connection: Connection) -> None:
    """Run a trivial statement, so that the idle timeout does not end a transaction that waits for another system."""
    connection.execute(query("keepalive"))


def _commit(connection: Connection) -> None:
    if not is_under_way(connection):
        # Postgres would answer COMMIT with ROLLBACK, and the driver would not raise an error.
        raise DatabaseUnavailableError("A transaction was ended, or one of its statements failed, before its COMMIT")
    try:
        connection.commit()
    except psycopg.Error as error:
        if (error.sqlstate or "").startswith(_COMMIT_REFUSED):
            raise
        raise CommitStateUnknownError(f"Postgres did not confirm COMMIT ({first_line(error)})") from error


# The last two: the transaction was idle for too long; the server is a standby.
_GONE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
)


# Tables into which a saga writes while it prepares. A concurrent drop of the corpus may delete their rows.
_OF_SAGAS = {
    ("ingest_pipeline", table)
    for table in ("saga", "document", "chunk", "staged_fragment", "embedded_batch", "batch_job", "failure", "hold")
}


@contextmanager
def translated(url: str) -> Generator[None]:
    """Raise this package's errors instead of the driver's."""
    try:
        yield
    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
        raise DatabaseConflictError(f"Postgres ended this transaction ({first_line(error)})") from error
    except psycopg.errors.ForeignKeyViolation as error:
        if (error.diag.schema_name, error.diag.table_name) not in _OF_SAGAS:
            raise  # a user's own table, which is in this schema if the role has the schema's name
        raise FencedError(f"What this process worked on was deleted from the database ({first_line(error)})") from error
    except psycopg.errors.InsufficientPrivilege as error:
        role = parts_of(url).get("user", "of this process")
        raise ConfigurationError(
            f"The role {role} may not do this in the database at {place_of(url)}: {first_line(error)}",
            "Nothing was changed. Use a role that may; docs/permissions.md says which role may do what.",
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise DatabaseUnavailableError("A lock in Postgres was held by somebody else for too long") from error
    except psycopg.errors.InvalidPassword as error:
        raise DatabaseUnavailableError(f"Postgres at {place_of(url)} refuses the password") from error
    except psycopg.errors.DiskFull as error:
        raise DatabaseUnavailableError(
            f"Postgres at {place_of(url)} has no room left: {first_line(error)}",
            "Nothing was changed. Make room on its disk, then run again.",
        ) from error
    except PoolTimeout as error:
        raise DatabaseUnavailableError(
            f"Postgres at {place_of(url)} gave no connection within {_POOL_SECONDS:g} s"
        ) from error
    except _GONE as error:
        raise DatabaseUnavailableError(
            f"Postgres at {place_of(url)} failed: {without_password(first_line(error), url)}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its class. It may quote the url."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _migrate(connection: Connection, url: str) -> None:
    """Apply the missing migrations in one transaction. An advisory lock admits one process at a time."""
    missing = _missing(connection)
    if not missing:
        return  # a role that only uses the tables needs no privilege to create them, and waits for no lock
    connection.execute("SET LOCAL lock_timeout = '60s'")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = '60s'")
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
    try:
        # CREATE SCHEMA requires a privilege on the database even if the schema exists.
        if not _exists(connection, "to_regnamespace('ingest_pipeline')"):
            connection.execute("CREATE SCHEMA ingest_pipeline")
        connection.execute(_MIGRATION_TABLE)
        for migration in _missing(connection):
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO ingest_pipeline.migration (number, name) VALUES (%s, %s)",
                (migration.number, migration.name),
            )
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"The database at {place_of(url)} lacks {len(missing)} of this program's migrations, and the role "
            f"{parts_of(url).get('user', 'of this process')} has no right to make its tables: {first_line(error)}",
            "Nothing was changed. Grant this role CREATE on the database, or run `ingest-pipeline corpora` once as the "
            "role that owns the schema ingest_pipeline; see docs/permissions.md.",
        ) from error


def _missing(connection: Connection) -> list[Migration]:
    """Return the migrations that are not applied to the database.

    Raises:
        SchemaNewerError: The database has migrations that this program does not know.
    """
    known, applied = migrations(), _applied(connection)
    newest = known[-1].number
    if applied and max(applied) > newest:
        raise SchemaNewerError(f"The database is at schema {max(applied)}; this program knows {newest}")
    return [migration for migration in known if migration.number not in applied]


def _applied(connection: Connection) -> set[int]:
    """Return the numbers of the migrations that are applied to the database."""
    if not _exists(connection, "to_regclass('ingest_pipeline.migration')"):
        return set()
    return {row["number"] for row in connection.execute("SELECT number FROM ingest_pipeline.migration")}


def _exists(connection: Connection, expression: LiteralString) -> bool:
    row = connection.execute(f"SELECT {expression} IS NOT NULL AS is_there").fetchone()
    return row is not None and row["is_there"]


_MIGRATION_TABLE: LiteralString = """
CREATE TABLE IF NOT EXISTS ingest_pipeline.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
