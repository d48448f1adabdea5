"""Erases documents from what Dagster keeps: events with previews, partitions, tags, run configurations and logs.

An event that names a document, or has a part of its text, is deleted. In the other tables the name is replaced. A name
counts only as a whole: the key `a.txt` does not occur in `data.txt`. Dagster has no public interface for this, so its
tables are changed directly, with the metadata by which Dagster itself reads them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import sqlalchemy as sa
from dagster import DagsterInstance
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.schedules.schema import ScheduleStorageSqlMetadata
from dagster._core.storage.schedules.sql_schedule_storage import SqlScheduleStorage

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.erasure.fingerprints import Fingerprints
from ingest_pipeline.erasure.remains import Searched
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.reporting.partitions import drop_empty_partitions
from ingest_pipeline.resources.names import DagsterNames

_ERASED = "erased"
_ROWS = 500
# Rows that are deleted as a whole if they name a document or have a part of its text.
_EVENTS = {"event_logs", "asset_check_executions", "asset_event_tags"}
# Values that Dagster computes from the events. It computes them again.
_DERIVED = {"last_materialization", "cached_status_data", "asset_details"}


@dataclass(frozen=True, slots=True)
class DagsterRecords:
    """What an instance of Dagster keeps of the documents of a corpus; see `Elsewhere`.

    Args:
        instance: Dagster's instance, whose storage is in an SQL database.
        names: Names of the corpus in Dagster.
    """

    instance: DagsterInstance
    names: DagsterNames

    def erase(self, corpus: Corpus, keys: Sequence[str], prints: Fingerprints) -> dict[str, int]:
        """Remove the documents; returns the numbers of rows and files, by what they are.

        Raises:
            ConfigurationError: Dagster's storage is not in an SQL database.
        """
        scheme = PartitionScheme.parse(corpus.head().partition_by or "file")
        partitions = [scheme.partition_of(key) for key in keys] if scheme.kind == "file" else []
        drop_empty_partitions(self.instance, self.names, corpus, scheme, partitions)
        mentions = _Mentions(keys, prints)
        removed = Counter[str]()
        with boundary(Boundary.DAGSTER_ERASED):
            for table, connect in self._tables():
                removed[f"Dagster's {table.name}"] += _clean(table, connect, mentions)
            removed["log files of Dagster"] += sum(_remove(path) for path in self._logs() if mentions.are_in_file(path))
            for table, connect in self._tables():
                if removed[f"Dagster's {table.name}"]:
                    _rewrite(table, connect)
        return dict(removed)

    def search(self, keys: Sequence[str], prints: Fingerprints, searched: Searched) -> None:
        """Search Dagster's tables and log files for the documents, and add what was found."""
        mentions = _Mentions(keys, prints)
        for table, connect in self._tables():
            searched.tables += 1
            for _, row in _rows(table, connect):
                if mentions.are_in("\n".join(row.values())):
                    searched.note(f"Dagster's table {table.name}", mentions.hits("\n".join(row.values())))
        for path in self._logs():
            searched.files += 1
            if mentions.are_in_file(path):
                searched.note(str(path), mentions.hits(path.read_bytes().decode(errors="replace")))

    def _tables(self) -> Iterator[tuple[sa.Table, _Connect]]:
        """All tables of Dagster that exist, each with the function that connects to it."""
        events, runs, ticks = self.instance.event_log_storage, self.instance.run_storage, self.instance.schedule_storage
        if not (isinstance(events, SqlEventLogStorage) and isinstance(runs, SqlRunStorage)):
            raise ConfigurationError(
                f"Dagster's storage {type(events).__name__} is not in an SQL database, so nothing can be erased there",
                "Delete the runs of the documents in Dagster's UI.",
            )
        yield from _existing(SqlEventLogStorageMetadata, events.index_connection)
        yield from _existing(RunStorageSqlMetadata, runs.connect)
        if isinstance(ticks, SqlScheduleStorage):
            yield from _existing(ScheduleStorageSqlMetadata, ticks.connect)

    def _logs(self) -> Iterator[Path]:
        """The files with the output of Dagster's steps, if they are on this machine."""
        manager = self.instance.compute_log_manager
        if isinstance(manager, LocalComputeLogManager):
            folder = Path(manager._base_dir)  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  no public name
            yield from (path for path in folder.rglob("*") if path.is_file())


class _Connect(Protocol):
    """Type of the functions that connect to one of Dagster's storages."""

    def __call__(self) -> AbstractContextManager[sa.Connection]: ...


class _Mentions:
    """Recognises the names of documents and parts of their texts.

    Args:
        keys: The documents.
        prints: Fingerprints of their texts.
    """

    def __init__(self, keys: Sequence[str], prints: Fingerprints) -> None:
        self._prints = prints
        forms = {form for key in keys for form in _forms(key)}
        names = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._name = re.compile(rf"(?<![\w./-])(?:{names})(?![\w/-]|\.\w)")

    def are_in(self, text: str) -> bool:
        return self._name.search(text) is not None or bool(self._prints.hits(text.encode(errors="replace")))

    def are_in_file(self, path: Path) -> bool:
        return self.are_in(path.read_bytes().decode(errors="replace"))

    def hits(self, text: str) -> set[int]:
        """The fingerprints in a text; a name of a document counts as one."""
        found = self._prints.hits(text.encode(errors="replace"))
        return found | {-hash(name) for name in self._name.findall(text)}

    def replaced(self, text: str) -> str:
        """The text without the names; empty if it also has a part of a document."""
        named = self._name.sub(_ERASED, text)
        return "" if self._prints.hits(named.encode(errors="replace")) else named


def _forms(key: str) -> Iterator[str]:
    """A name as it is, and as JSON writes it, once and within another JSON text."""
    yield key
    once = json.dumps(key)[1:-1]
    yield once
    yield json.dumps(once)[1:-1]


def _existing(metadata: sa.MetaData, connect: object) -> Iterator[tuple[sa.Table, _Connect]]:
    connection_of = cast("_Connect", connect)
    with connection_of() as connection:
        present = set(sa.inspect(connection).get_table_names())
    for table in metadata.sorted_tables:
        if table.name in present:
            yield table, connection_of


def _rows(table: sa.Table, connect: _Connect) -> Iterator[tuple[int, dict[str, str]]]:
    """The texts of all rows of a table, by id, some rows at a time."""
    texts = [column for column in table.columns if isinstance(column.type, sa.String)]
    last = -1
    while True:
        chosen = sa.select(table.c.id, *texts).where(table.c.id > last).order_by(table.c.id).limit(_ROWS)
        with connect() as connection:
            rows = connection.execute(chosen).mappings().all()
        for row in rows:
            yield row["id"], {column.name: row[column.name] for column in texts if row[column.name]}
        if len(rows) < _ROWS:
            return
        last = rows[-1]["id"]


def _clean(table: sa.Table, connect: _Connect, mentions: _Mentions) -> int:
    """Remove the documents from a table; returns the number of rows that were deleted or changed."""
    changed = 0
    for number, row in _rows(table, connect):
        if not mentions.are_in("\n".join(row.values())):
            continue
        changed += 1
        with connect() as connection:
            if table.name in _EVENTS:
                connection.execute(sa.delete(table).where(table.c.id == number))
                continue
            values = {
                name: None if name in _DERIVED else mentions.replaced(value)
                for name, value in row.items()
                if mentions.are_in(value)
            }
            connection.execute(sa.update(table).where(table.c.id == number).values(**values))
    return changed


def _rewrite(table: sa.Table, connect: _Connect) -> None:
    """Rewrite a table of Postgres, so that its file has no deleted rows any more."""
    with connect() as connection:
        if connection.dialect.name != "postgresql":
            return
        # VACUUM cannot run in the transaction that SQLAlchemy has begun.
        connection.commit()
        outside = connection.execution_options(isolation_level="AUTOCOMMIT")
        outside.execute(sa.text(f'VACUUM (FULL, ANALYZE) "{table.name}"'))
        outside.execute(sa.text("VACUUM (FULL) pg_catalog.pg_statistic"))


def _remove(path: Path) -> int:
    path.unlink(missing_ok=True)
    return 1
