"""Completes Dagster's own tables after a process died while creating them."""

from __future__ import annotations

from contextlib import suppress

from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from dagster._core.storage.sql import check_alembic_revision, stamp_alembic_rev
from dagster_postgres.event_log import event_log
from dagster_postgres.utils import pg_alembic_config
from sqlalchemy import NullPool, create_engine, inspect
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

_METADATA = {
    "runs": RunStorageSqlMetadata,
    "event_logs": SqlEventLogStorageMetadata,
    "jobs": ScheduleStorageSqlMetadata,
}
"""Tables of each of Dagster's storages, by the one table whose existence Dagster checks."""


def complete_tables(url: str) -> None:
    """Create the tables that are missing because a process or the server died while Dagster created them.

    Dagster creates its tables without a transaction, and later looks for one of them only. Tables of another release of
    Dagster are left to `dagster instance migrate`.

    Args:
        url: Url of Dagster's storage, as `storage.prepare_storage` returns it.
    """
    engine = create_engine(url, poolclass=NullPool)
    # Another process may create the same tables at this moment, which is no error. If the server does not answer,
    # Dagster connects next and reports that itself.
    with suppress(IntegrityError, OperationalError, ProgrammingError), engine.begin() as connection:
        found = set(inspect(connection).get_table_names())
        begun = [metadata for table, metadata in _METADATA.items() if table in found]
        if all(set(metadata.tables) <= found for metadata in begun):
            return
        configuration = pg_alembic_config(str(event_log.__file__))
        revision, newest = check_alembic_revision(configuration, connection)
        if revision not in (None, newest):
            return
        for metadata in begun:
            metadata.create_all(connection)
        if revision is None:
            stamp_alembic_rev(configuration, connection)
