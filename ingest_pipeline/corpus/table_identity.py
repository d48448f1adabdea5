"""Checks that a table is the one in the catalog, and that this database is the one that writes the table.

A database can be older than its table: it was restored from a backup, or replaced a server that had confirmed more. Or
it is a copy, such as a clone for tests over the same storage. To both, later publications look like the remains of a
writer that died. So the mark of a version decides what it is, not what the ledger lacks:

- no saga: something else wrote the version;
- a saga of this database that was prepared and not published: its writer died, and the version is undone;
- anything else: another database published the version, or this one did in a history that it lost. It is kept.

The ledger cannot always distinguish the last two, because a backup taken between a saga's preparation and its COMMIT
contains the saga. The write-ahead log can: a mark records how much of the log was on disk before the version was
written. If a database has less log than that, it lost some, which no crash causes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ingest_pipeline.corpus.head_manifest import install_head
from ingest_pipeline.errors import ConflictError, NotOurTableError, OtherDatabaseError, VersionGoneError
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import CorpusFacts, DatabaseIdentity, VersionMark
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaState
from ingest_pipeline.postgres.sql import query

Origin = Literal["ours", "foreign", "other"]
"""Who made a version: a saga of this database, no saga, or a saga of another database or history."""

_LOOKS = 3
_SEE = "docs/backup_and_restore.md describes the cases."


@dataclass(frozen=True, slots=True)
class ThisDatabase:
    """The identity of this database and the length of its log. None: the server does not report it."""

    identity: DatabaseIdentity
    flushed: int | None
    """Bytes of the write-ahead log that are on disk."""
    written: int | None
    """Bytes of the write-ahead log."""


@dataclass(frozen=True, slots=True)
class TableFinding:
    """The marks of a table, compared with a row of the catalog."""

    latest: int
    holds_head: bool
    """Whether the table has the version that head names, made by the saga that head names."""
    written_by: DatabaseIdentity | None
    """The database that made the version at head."""
    is_ours: bool
    """Whether this database made the version at head."""
    written_at: str
    """The URI of the table at that time. It differs from the present one if the table was moved or copied."""
    newer: int | None
    """The first version above head that another database made, or that this one made in a lost history."""


def this_database(connection: Connection) -> ThisDatabase:
    """Read the identity of the database of a connection."""
    row = connection.execute(query("this_database")).fetchone()
    assert row is not None  # noqa: S101  a function with OUT parameters returns one row
    parts = {name: row[name] or "" for name in ("installation", "system", "timeline", "number", "folder", "name")}
    return ThisDatabase(DatabaseIdentity(**parts), row["flushed"], row["written"])


def mark_for(connection: Connection, row: GenerationRow, saga: UUID) -> VersionMark:
    """The mark for the version that a saga is about to make."""
    here = this_database(connection)
    facts = CorpusFacts(row.name, row.corpus, row.source, row.partition_by, row.embedding)
    return VersionMark(saga, here.identity, here.flushed, row.table_uri, facts)


def origins(connection: Connection, marks: Mapping[int, VersionMark | None]) -> dict[int, Origin]:
    """Determine who made some unpublished versions.

    Args:
        connection: The connection of the caller's transaction.
        marks: The mark of each version.
    """
    here = this_database(connection)
    outcomes = sagas.outcomes(connection, [mark.saga for mark in marks.values() if mark is not None])
    return {version: _origin(here, outcomes, mark) for version, mark in marks.items()}


def _origin(here: ThisDatabase, sagas: Mapping[UUID, sagas.Outcome], mark: VersionMark | None) -> Origin:
    if mark is None:
        return "foreign"
    saga = sagas.get(mark.saga)
    if saga is None or mark.database != here.identity or _has_less_log(here, mark):
        return "other"
    match saga.state:
        case SagaState.PUBLISHED:
            # Without the lock, the version may be head by now. A version of an earlier attempt was undone before.
            return "ours"
        case SagaState.ADOPTED:
            return "other"
        case _:
            return "ours" if saga.was_prepared else "other"


def _has_less_log(here: ThisDatabase, mark: VersionMark) -> bool:
    return here.written is not None and mark.flushed is not None and here.written < mark.flushed


def examine(connection: Connection, row: GenerationRow, table: LanceTable) -> TableFinding:
    """Compare a table with a row of the catalog. Changes nothing.

    Args:
        connection: The connection of the caller's transaction.
        row: A row of the catalog, which may name another table.
        table: The table, in any folder.

    Raises:
        TableUnavailableError: The table does not exist, or the store does not answer.
    """
    latest = table.latest_version()
    mark = _mark_at(table, row.head_version) if row.head_version <= latest else None
    newer = _first_of_others(connection, row, table, latest)
    here = this_database(connection).identity
    return TableFinding(
        latest,
        mark is not None and mark.saga == row.head_saga,
        None if mark is None else mark.database,
        mark is not None and mark.database == here,
        "" if mark is None else mark.table,
        newer,
    )


def check_ours(connection: Connection, row: GenerationRow, table: LanceTable) -> None:
    """Refuse to write a table that another database writes, or that is newer than this database.

    Takes no lock, because concurrent publications cannot make a refused table acceptable.

    Raises:
        OtherDatabaseError: The user must first decide which of the two databases is right.
        NotOurTableError: The table is not the one that this corpus created.
    """
    finding = check_holds_head(connection, row, table)
    if not finding.is_ours:
        raise OtherDatabaseError(
            f"The table of corpus {row.corpus!r} at {row.table_uri} was last published by the database "
            f"{finding.written_by}, and this is {this_database(connection).identity}: a copy of it, one restored "
            "from a backup, or one that took over from a failed server",
            "Nothing was changed. If the other database no longer writes, run `ingest-pipeline recover --take-over`; "
            f"otherwise give this database a table of its own. {_SEE}",
        )
    if finding.written_at != row.table_uri:
        raise OtherDatabaseError(
            f"The table of corpus {row.corpus!r} at {row.table_uri} was written at {finding.written_at}: it was "
            "moved or copied",
            "Nothing was changed. To continue with this table, run `ingest-pipeline recover --take-over`. Otherwise "
            f"set INGEST_LANCEDB_URI back. {_SEE}",
        )


def check_holds_head(connection: Connection, row: GenerationRow, table: LanceTable) -> TableFinding:
    """Refuse a table that lacks head or has newer versions of another database. Any database may have made head.

    Raises:
        OtherDatabaseError, NotOurTableError: As in `check_ours`.
    """
    for _ in range(_LOOKS):
        install_head(table, row)
        finding = examine(connection, row, table)
        if finding.holds_head:
            break
        now = corpora.read_generation(connection, row.name)
        if now is None or now.head_version == row.head_version:
            raise _mismatch(row, finding)
        row = now  # retention removed the version that was head a moment ago
    else:
        raise ConflictError(f"Head of corpus {row.corpus!r} moved during every comparison with its table")
    if finding.newer is not None:
        raise other_write(row, finding.newer, table.mark_of(finding.newer))
    return finding


def other_write(row: GenerationRow, version: int, mark: VersionMark | None) -> OtherDatabaseError:
    """The error for a version above head that this database must not undo."""
    maker = "" if mark is None else f" saga {mark.saga} of the database {mark.database}"
    return OtherDatabaseError(
        f"Version {version} of the table of corpus {row.corpus!r}, above head {row.head_version}, was published by"
        f"{maker}, which this database does not know as its own: it is older than the table, as after a restore from a "
        "backup, or a copy of another database that writes the table",
        "Nothing was changed. Keep the table's content with `ingest-pipeline recover --rebuild-catalog`, or bring the "
        f"table back to head with `ingest-pipeline recover --restore`. {_SEE}",
    )


def without_head(row: GenerationRow, latest: int) -> OtherDatabaseError:
    """The error for a table whose latest version is below head."""
    return OtherDatabaseError(
        f"Corpus {row.corpus!r} has head {row.head_version}, and its table at {row.table_uri} ends at version "
        f"{latest}: the table was replaced, or restored from an older backup",
        "Nothing was changed. Put the newer table back, or bring the catalog to the state of this table with "
        f"`ingest-pipeline recover --rebuild-catalog`. {_SEE}",
    )


def _mismatch(row: GenerationRow, finding: TableFinding) -> OtherDatabaseError | NotOurTableError:
    if finding.latest < row.head_version:
        return without_head(row, finding.latest)
    if finding.written_by is None:
        return OtherDatabaseError(
            f"Corpus {row.corpus!r} has head {row.head_version}, a version that its table at {row.table_uri} no "
            f"longer has, and the latest is {finding.latest}: the database is older than the table's retention",
            f"Nothing was changed. Bring the catalog to the state of the table with `ingest-pipeline recover "
            f"--rebuild-catalog`. {_SEE}",
        )
    return NotOurTableError(
        f"Version {row.head_version} of the LanceDB table at {row.table_uri} is not the one that corpus "
        f"{row.corpus!r} published",
        "Nothing was changed. Put the right table there, or bring the catalog to the state of this table with "
        f"`ingest-pipeline recover --rebuild-catalog`. {_SEE}",
    )


def _mark_at(table: LanceTable, version: int) -> VersionMark | None:
    try:
        return table.mark_of(version)
    except VersionGoneError:
        return None


def _first_of_others(connection: Connection, row: GenerationRow, table: LanceTable, latest: int) -> int | None:
    """The first version above head that this database must not undo."""
    for version in range(row.head_version + 1, latest + 1):
        try:
            mark = table.mark_of(version)
        except VersionGoneError:
            continue
        if origins(connection, {version: mark})[version] == "other":
            return version
    return None
