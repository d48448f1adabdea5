"""Dagster's tables in Postgres at a fraction of their cost: kept connections, and a database that has them already.

Dagster opens a connection for each statement: fifty to open an instance and eighty for a run, each of which costs six
milliseconds of CPU. It also asks Postgres again, for each event, which tables and columns it has.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from dagster_postgres import utils
from dagster_postgres.event_log import event_log
from dagster_postgres.event_log.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import run_storage
from dagster_postgres.run_storage.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import schedule_storage
from sqlalchemy import Engine, Inspector, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

from ingest_pipeline.cli import _dagster, _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.environment import restored_environment
from tests.support.servers.databases import is_copy

_IDLE_SECONDS = 0.3
"""A server that restarts is down for longer."""
_SCHEMA_QUESTIONS = (
    (PostgresEventLogStorage, "has_table"),
    (PostgresEventLogStorage, "has_asset_key_col"),
    (PostgresRunStorage, "has_run_stats_index_cols"),
    (PostgresRunStorage, "has_backfill_id_column"),
)
"""Methods by which Dagster finds out whether a table or a column exists."""
_in_copies: set[tuple[object, ...]] = set()
"""What exists in each copy of the database that `make_tables` completed."""
_tables_of_copies: list[str] = []
_get_table_names = Inspector.get_table_names


@contextmanager
def kept_connections(idle: int = 5) -> Generator[None]:
    """Let the storages of this process that are opened in the block keep their connections until it ends.

    Args:
        idle: How many idle connections a storage keeps, at most.
    """
    engines: dict[str, Engine] = {}

    def pooled(url: str, **options: Any) -> Engine:
        # Each instance that is opened makes three, and leaves them to the garbage collector.
        key = repr((str(url), sorted(options.items(), key=str)))
        if key not in engines:
            kept = {"poolclass": QueuePool, "pool_size": idle, "max_overflow": -1}
            engines[key] = create_engine(url, **options | kept)
            _replace_broken(engines[key])
            event.listen(engines[key], "do_execute", _is_notification)
        return engines[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (utils, event_log, run_storage, schedule_storage):
            patch.setattr(module, "create_engine", pooled)
        existing: set[tuple[object, ...]] = set()
        for storage, name in _SCHEMA_QUESTIONS:
            patch.setattr(storage, name, _remembered(getattr(storage, name), existing))
        patch.setattr(Inspector, "get_table_names", _tables)
        try:
            yield
        finally:
            for engine in engines.values():
                engine.dispose()


def _remembered(question: Callable[..., bool], existing: set[tuple[object, ...]]) -> Callable[..., bool]:
    """Ask Postgres until a table or column exists. No test takes one away from a storage that has used it."""

    def asked(storage: Any, *names: str) -> bool:
        known = _in_copies if is_copy(storage.postgres_url) else existing
        key = ("copy" if known is _in_copies else storage.postgres_url, question.__name__, *names)
        if key not in known and question(storage, *names):
            known.add(key)
        return key in known

    return asked


def _tables(inspector: Inspector, schema: str | None = None, **options: Any) -> list[str]:
    """The tables of a database. Copies have the same ones, which Dagster asks for four times to open an instance."""
    if schema is not None or not is_copy(inspector.engine.url.render_as_string(hide_password=False)):
        return _get_table_names(inspector, schema, **options)
    if not _tables_of_copies:
        _tables_of_copies.extend(_get_table_names(inspector, schema, **options))
    return list(_tables_of_copies)


def _is_notification(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> bool | None:
    """Leave out what Dagster sends with each event for its older releases. Nobody listens."""
    return statement.startswith("NOTIFY ") or None


def _replace_broken(engine: Engine) -> None:
    """Replace a connection that was cut in the meantime, as if it had been opened for the statement.

    Only one that was idle for a while is tested. SQLAlchemy's `pool_pre_ping` doubles the number of round trips.
    """

    def note_time(connection: Any, record: Any) -> None:
        record.info["idle_since"] = monotonic()

    def ping(connection: Any, record: Any, proxy: Any) -> None:
        if monotonic() - record.info.get("idle_since", monotonic()) > _IDLE_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except Exception as error:
                raise DisconnectionError from error  # the pool opens another one

    event.listen(engine, "checkin", note_time)
    event.listen(engine, "checkout", ping)


def make_tables(database_url: str, state: Path) -> None:
    """Make Dagster's tables in an empty database, and nothing else."""
    environment = {"INGEST_STATE": str(state), "INGEST_DATABASE_URL": database_url}
    settings = CorpusConfig.from_environment(environment)
    # Opening an instance sets variables, and this runs before the fixture of a test that would restore them.
    with restored_environment(), _session.postgres(settings) as running, _dagster.instance(running):
        pass
