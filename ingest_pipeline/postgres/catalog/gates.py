"""Blocked publications, and what the gates found. Every function runs in its caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from ingest_pipeline.errors import FencedError
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.texts import sanitize_text
from ingest_pipeline.types import Finding


@dataclass(frozen=True, slots=True)
class Block:
    """What a blocked publication would make of one document."""

    key: str
    partition: str
    etag: str | None
    """ETag of the object that was prepared. None: the document would be removed."""
    recipe: str | None
    saga: UUID


@dataclass(frozen=True, slots=True)
class BlockedPublication:
    """A prepared publication that did not pass its gates."""

    saga: UUID
    generation: str
    run_id: str | None
    judged_at: datetime
    head_version: int
    """Head when it was judged."""
    findings: tuple[Finding, ...]
    documents: int
    removed: int
    chunks: int


@dataclass(frozen=True, slots=True)
class SwitchJudgement:
    """The last judgement of a generation that readers were to be switched to."""

    passed: bool
    released_at: datetime | None
    findings: tuple[Finding, ...]
    head_version: int
    judged_at: datetime


def record_judgement(
    connection: Connection,
    generation: str,
    saga: UUID | None,
    head_version: int,
    findings: Sequence[Finding],
    *,
    files: Mapping[str, Sequence[str]] | None = None,
    columns: bytes | None = None,
) -> None:
    """Record what the gates found.

    Args:
        connection: Connection of the caller's transaction.
        generation: The generation that was judged.
        saga: The publication. None: the switch of readers to the generation.
        head_version: Head of the generation.
        findings: What was found.
        files: Names of the data files of each document, if the publication is blocked.
        columns: The columns of these files, as a schema of Arrow.
    """
    values = {
        "generation": generation,
        "saga": saga,
        "head_version": head_version,
        "passed": all(finding.passed for finding in findings),
        "findings": Jsonb([asdict(finding) for finding in findings]),
        "files": None if files is None else Jsonb({key: list(names) for key, names in files.items()}),
        "columns": columns,
    }
    connection.execute(query("record_judgement"), values)


def block(connection: Connection, saga: UUID, error: str) -> None:
    """Move a prepared saga to state ``blocked``.

    Raises:
        FencedError: Another process settled the saga.
    """
    values = {"id": saga, "error": sanitize_text(error)}
    if connection.execute(query("block_saga"), values).fetchone() is None:
        raise FencedError(f"Saga {saga} has ended: its writer was taken for dead")


def unblock(connection: Connection, saga: UUID) -> None:
    """Move a blocked saga back to state ``prepared``, in the transaction that publishes it.

    Raises:
        FencedError: The saga is not blocked any more.
    """
    if connection.execute(query("unblock_saga"), {"id": saga}).fetchone() is None:
        raise FencedError(f"Saga {saga} is not blocked any more: it was released, dropped or overtaken")


def drop(connection: Connection, saga: UUID, error: str) -> bool:
    """End a blocked saga, and delete the document rows that it planned; False if it was not blocked."""
    if connection.execute(query("drop_blocked"), {"id": saga, "error": error}).fetchone() is None:
        return False
    _forget(connection, saga)
    return True


def overtake(connection: Connection, saga: UUID) -> list[UUID]:
    """End the blocked publications that have a document of a saga, which publishes them or is blocked itself."""
    values = {"saga": saga, "error": f"overtaken by saga {saga}"}
    ended = [row["id"] for row in connection.execute(query("overtake_blocked"), values).fetchall()]
    for other in ended:
        _forget(connection, other)
    return ended


def _forget(connection: Connection, saga: UUID) -> None:
    prepared_documents.forget_documents(connection, saga)
    connection.execute(query("forget_prepared_files"), {"saga": saga})


def forget_details(connection: Connection, generation: str) -> None:
    """Delete what judgements say about single documents: an erasure leaves no key of one."""
    connection.execute(query("forget_details"), {"generation": generation})


def release(connection: Connection, generation: str, saga: UUID | None) -> bool:
    """Record that the user accepted what did not pass; False if there is nothing to accept.

    Args:
        connection: Connection of the caller's transaction.
        generation: The generation.
        saga: The blocked publication. None: the switch of readers to the generation.
    """
    values = {"generation": generation, "saga": saga}
    return bool(connection.execute(query("release_judgement"), values).fetchall())


def blocked_sagas(connection: Connection, generation: str) -> set[UUID]:
    """Return the ids of the blocked sagas."""
    return {row["id"] for row in connection.execute(query("blocked_sagas"), {"generation": generation})}


def read_blocks(connection: Connection, generation: str, keys: Sequence[str] | None = None) -> dict[str, Block]:
    """Return the blocks of some documents, or of all, by key."""
    values = {"generation": generation, "keys": None if keys is None else list(keys)}
    return {row["key"]: Block(**row) for row in connection.execute(query("blocked_documents"), values)}


def blocked_publications(connection: Connection, generation: str) -> list[BlockedPublication]:
    """Return the blocked publications, oldest first."""
    rows = connection.execute(query("blocked_publications"), {"generation": generation}).fetchall()
    return [BlockedPublication(**_with_findings(row)) for row in rows]


def prepared_files(connection: Connection, saga: UUID) -> tuple[dict[str, list[str]], bytes] | None:
    """Return the data files of each document of a blocked publication, and their columns as a schema of Arrow."""
    row = connection.execute(query("prepared_files"), {"saga": saga}).fetchone()
    return None if row is None else (row["files"], row["columns"])


def staged_fragments(connection: Connection, saga: UUID) -> dict[str, int]:
    """Return the recorded data files of a saga with their numbers of rows."""
    rows = connection.execute(query("staged_fragments"), {"saga": saga})
    return {row["name"]: row["row_count"] for row in rows}


def removed_keys(connection: Connection, saga: UUID) -> list[str]:
    """Return the keys of the documents that a saga removes."""
    return [row["key"] for row in connection.execute(query("removed_keys"), {"saga": saga})]


def last_switch_judgement(connection: Connection, generation: str) -> SwitchJudgement | None:
    """Return the last judgement of a generation before the switch, None if there is none."""
    row = connection.execute(query("last_judgement_of_switch"), {"generation": generation}).fetchone()
    return None if row is None else SwitchJudgement(**_with_findings(row))


@dataclass(frozen=True, slots=True)
class Counted:
    """The chunks to count: those of a saga, or those at head of a generation."""

    saga: UUID | None
    generation: str
    characters: int
    """A longer chunk is too long."""

    def values(self, limit: int = 0) -> dict[str, object]:
        """The values of the statements."""
        return {**asdict(self), "limit": limit}


def chunk_counts(connection: Connection, of: Counted) -> tuple[int, int, int]:
    """Count chunks, those whose text another one has, and those that are too long."""
    row = connection.execute(query("chunk_counts"), of.values()).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    return row["chunks"], row["duplicates"], row["long"]


def long_chunks(connection: Connection, of: Counted, limit: int) -> list[str]:
    """Return the ids of the longest chunks that are too long."""
    return [str(row["id"]) for row in connection.execute(query("long_chunks"), of.values(limit))]


def duplicate_chunks(connection: Connection, of: Counted, limit: int) -> list[str]:
    """Return ids of chunks whose text an earlier one has."""
    return [str(row["id"]) for row in connection.execute(query("duplicate_chunks"), of.values(limit))]


def lost_documents(connection: Connection, old: str, new: str) -> tuple[list[str], list[str]]:
    """Return the keys at head of a generation that have no text in another one, and those that it lacks."""
    rows = connection.execute(query("lost_documents"), {"old": old, "new": new}).fetchall()
    return [row["key"] for row in rows if not row["removed"]], [row["key"] for row in rows if row["removed"]]


def _with_findings(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(row) | {"findings": tuple(map(_finding, row["findings"]))}


def _finding(values: Mapping[str, Any]) -> Finding:
    known: dict[str, Any] = {**values, "ids": tuple(values["ids"])}
    return Finding(**known)
