"""Whether a table is the one that the catalog means, and whether this database is the one that writes it.

A database can be older than its table: it was restored from a backup, or took over from a server that had confirmed
more. Or it is a copy: a clone for tests over the same storage. To either, what was published since looks like the
remains of a writer that died. So what a version says about its maker decides, not what is missing here:

- no saga: something else wrote it;
- a saga of this very database that it prepared and did not publish: its writer died, and it is undone;
- anything else: another database published it, or this one in a history that it lost. It is left alone.

The log of the database tells the last two apart where the ledger cannot: a backup taken between a saga's preparation
and its COMMIT knows the saga. A version says how much of the log was on disk before it was made. A database that has
less has lost some, which no crash does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from ingest_pipeline.errors import ConflictError, NotOurTableError, OtherDatabaseError, VersionGoneError
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.version_mark import CorpusFacts, DatabaseIdentity, VersionMark
from ingest_pipeline.postgres import corpora, sagas
from ingest_pipeline.postgres.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query

Origin = Literal["ours", "foreign", "other"]
"""Of a version: made by a saga of this database, by no saga at all, by a saga of another database or history."""

_LOOKS = 3
_SEE = "docs/backup_and_restore.md says more."


@dataclass(frozen=True, slots=True)
class ThisDatabase:
    """Who this database is, and how far its log goes. None: the server does not say."""

    identity: DatabaseIdentity
    flushed: int | None
    """Bytes of the log that are on disk."""
    written: int | None
    """Bytes of the log."""


@dataclass(frozen=True, slots=True)
class TableFinding:
    """What a table says about itself, compared with a row of the catalog."""

    latest: int
    holds_head: bool
    """It has the version that head names, made by the saga that head names."""
    written_by: DatabaseIdentity | None
    """The database that made that version."""
    is_ours: bool
    """That is this one."""
    written_at: str
    """The uri that the table had then; another than it has now if the table was moved or copied."""
    newer: int | None
    """The first version above head that another database made, or this one in a history that it lost."""


def this_database(connection: Connection) -> ThisDatabase:
    """Who answers on a connection."""
    row = connection.execute(query("this_database")).fetchone()
    assert row is not None  # noqa: S101  a function with OUT parameters returns one row
    parts = {name: row[name] or "" for name in ("installation", "system", "timeline", "number", "folder", "name")}
    return ThisDatabase(DatabaseIdentity(**parts), row["flushed"], row["written"])


def mark_for(connection: Connection, row: GenerationRow, saga: UUID) -> VersionMark:
    """What a version that a saga is about to make says about itself."""
    here = this_database(connection)
    facts = CorpusFacts(row.name, row.corpus, row.source, row.partition_by, row.embedding)
    return VersionMark(saga, here.identity, here.flushed, row.table_uri, facts)


def origins(connection: Connection, marks: Mapping[int, VersionMark | None]) -> dict[int, Origin]:
    """Who made some versions that are not published.

    Args:
        connection: Of the caller's transaction.
        marks: What each version says about itself.
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
    if saga.state == "published":
        # Seen without the lock, a version may have become head since; one of an earlier attempt was undone by then.
        return "ours"
    return "ours" if saga.was_prepared and saga.state != "adopted" else "other"


def _has_less_log(here: ThisDatabase, mark: VersionMark) -> bool:
    return here.written is not None and mark.flushed is not None and here.written < mark.flushed


def examine(connection: Connection, row: GenerationRow, table: LanceTable) -> TableFinding:
    """Compare a table with a row of the catalog. Changes nothing.

    Args:
        connection: Of the caller's transaction.
        row: Of the catalog; it need not name this table.
        table: Anywhere.

    Raises:
        TableUnavailableError: There is no table, or the store does not answer.
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
    """Refuse to write a table that another database writes, or that this one knows from an older time only.

    Takes no lock: what is refused stays wrong, however many others publish.

    Raises:
        OtherDatabaseError: Nothing may be written before the user decides which of the two is right.
        NotOurTableError: The table is not the one that this corpus made.
    """
    finding = check_holds_head(connection, row, table)
    if not finding.is_ours:
        raise OtherDatabaseError(
            f"The table of corpus {row.corpus!r} at {row.table_uri} was last published by the database "
            f"{finding.written_by}, and this is {this_database(connection).identity}: a copy of it, one restored "
            "from a backup, or one that took over from a failed server",
            "Nothing was changed. If the other database no longer writes, run `ingest-pipeline recover --take-over`; "
            f"if it does, give this one a table of its own. {_SEE}",
        )
    if finding.written_at != row.table_uri:
        raise OtherDatabaseError(
            f"The table of corpus {row.corpus!r} at {row.table_uri} was written at {finding.written_at}: it was "
            "moved or copied",
            "Nothing was changed. If it is the one to go on with, run `ingest-pipeline recover --take-over`; if not, "
            f"set INGEST_LANCEDB_URI back. {_SEE}",
        )


def check_holds_head(connection: Connection, row: GenerationRow, table: LanceTable) -> TableFinding:
    """Refuse a table that lacks head, or holds more than this database knows; whoever published head.

    Raises:
        OtherDatabaseError, NotOurTableError: As in `check_ours`.
    """
    for _ in range(_LOOKS):
        finding = examine(connection, row, table)
        if finding.holds_head:
            break
        now = corpora.read_generation(connection, row.name)
        if now is None or now.head_version == row.head_version:
            raise _mismatch(row, finding)
        row = now  # retention took the version that ceased to be head just now
    else:
        raise ConflictError(f"Head of corpus {row.corpus!r} moved at every look at its table")
    if finding.newer is not None:
        raise other_write(row, finding.newer, table.mark_of(finding.newer))
    return finding


def other_write(row: GenerationRow, version: int, mark: VersionMark | None) -> OtherDatabaseError:
    """What to tell the user about a version above head that is not ours to undo."""
    maker = "" if mark is None else f" saga {mark.saga} of the database {mark.database}"
    return OtherDatabaseError(
        f"Version {version} of the table of corpus {row.corpus!r}, above head {row.head_version}, was published by"
        f"{maker}, which this database does not know as its own: it is older than the table, as after a restore from a "
        "backup, or a copy of another database that writes the table",
        "Nothing was changed. Keep what the table holds with `ingest-pipeline recover --rebuild-catalog`, or take the "
        f"table back to head with `ingest-pipeline recover --restore`. {_SEE}",
    )


def without_head(row: GenerationRow, latest: int) -> OtherDatabaseError:
    """What to tell the user of a table that ends before head."""
    return OtherDatabaseError(
        f"Corpus {row.corpus!r} has head {row.head_version}, and its table at {row.table_uri} ends at version "
        f"{latest}: the table was replaced, or restored from an older backup",
        "Nothing was changed. Put the newer table back, or bring the catalog to what this one holds with "
        f"`ingest-pipeline recover --rebuild-catalog`. {_SEE}",
    )


def _mismatch(row: GenerationRow, finding: TableFinding) -> OtherDatabaseError | NotOurTableError:
    if finding.latest < row.head_version:
        return without_head(row, finding.latest)
    if finding.written_by is None:
        return OtherDatabaseError(
            f"Corpus {row.corpus!r} has head {row.head_version}, a version that its table at {row.table_uri} no "
            f"longer has, and the latest is {finding.latest}: the database is older than the table's retention",
            f"Nothing was changed. Bring the catalog to what the table holds with `ingest-pipeline recover "
            f"--rebuild-catalog`. {_SEE}",
        )
    return NotOurTableError(
        f"Version {row.head_version} of the LanceDB table at {row.table_uri} is not the one that corpus "
        f"{row.corpus!r} published",
        "Nothing was changed. Put the right table there, or bring the catalog to what this one holds with "
        f"`ingest-pipeline recover --rebuild-catalog`. {_SEE}",
    )


def _mark_at(table: LanceTable, version: int) -> VersionMark | None:
    try:
        return table.mark_of(version)
    except VersionGoneError:
        return None


def _first_of_others(connection: Connection, row: GenerationRow, table: LanceTable, latest: int) -> int | None:
    """A version above head that is not ours to undo."""
    for version in range(row.head_version + 1, latest + 1):
        try:
            mark = table.mark_of(version)
        except VersionGoneError:
            continue
        if origins(connection, {version: mark})[version] == "other":
            return version
    return None
