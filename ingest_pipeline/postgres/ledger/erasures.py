"""Erasures: the ledger's record that documents were erased, and the statements that remove a document from Postgres.

The record has the salted hash of each key, never the key, so it can say of a name whether it was erased, and does not
list names. Only while an erasure is in progress does it have the keys and the fingerprints of the text, so that any
process can finish it. Every function runs in its caller's transaction.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row

from ingest_pipeline.errors import ConflictError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import extension_results
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.texts import sanitize_text
from ingest_pipeline.processes import this_process
from ingest_pipeline.types import counted

_SALT_BYTES = 16
_OF_KEYS = {
    "chunk": "erase_chunks",
    "document": "erase_documents",
    "failure": "erase_failures",
    "hold": "erase_holds",
    "batch_job": "erase_batch_jobs",
    "saga": "erase_saga_errors",
    "run_failure": "erase_run_failures",
    "embedded_batch": "erase_batches",
}
"""The statements that remove documents from one generation, by table and in their order."""


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """An erasure as the ledger records it."""

    id: UUID
    corpus: str
    reason: str
    salt: bytes
    writer: str
    requested_at: datetime
    seen_at: datetime
    keys: list[str] | None
    """The documents to erase. None: they are erased."""
    fingerprints: bytes | None
    fingerprint_count: int | None
    found: int | None
    files: int | None
    tables: int | None
    erased_at: datetime | None
    """None: the erasure is not finished."""
    key_hashes: list[bytes]
    """Hashes of the keys that are not ingested again."""


@dataclass(frozen=True, slots=True)
class ErasedKeys:
    """The keys of a corpus that are not ingested again, as hashes by salt."""

    hashes: Mapping[bytes, frozenset[bytes]]

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and any(key_hash(salt, key) in found for salt, found in self.hashes.items())


def key_hash(salt: bytes, key: str) -> bytes:
    """The hash of a key: SHA-256 of the salt and the key."""
    return hashlib.sha256(salt + key.encode()).digest()


def salt_of(connection: Connection, corpus: str) -> bytes:
    """The salt of the corpus' erasures, a new one before the first."""
    row = connection.execute(query("erasure_salt"), {"corpus": corpus}).fetchone()
    return os.urandom(_SALT_BYTES) if row is None else bytes(row["salt"])


def record(
    connection: Connection,
    erasure: UUID,
    *,
    corpus: str,
    reason: str,
    salt: bytes,
    keys: Sequence[str],
    fingerprints: bytes,
) -> ErasureRow:
    """Record an erasure, and return its row. From its COMMIT on, no publication of the documents is possible."""
    values = {"id": erasure, "corpus": corpus, "reason": sanitize_text(reason), "salt": salt, "writer": this_process()}
    with boundary(Boundary.ERASURE_RECORDED):
        connection.execute(query("insert_erasure"), {**values, "keys": list(keys), "fingerprints": fingerprints})
        hashes = [key_hash(salt, key) for key in keys]
        connection.execute(query("insert_erased_documents"), {"id": erasure, "hashes": hashes})
    [row] = _read(connection, corpus, erasure=erasure)
    return row


def copy(
    connection: Connection,
    erasure: UUID,
    *,
    corpus: str,
    reason: str,
    salt: bytes,
    requested_at: datetime,
    key_hashes: Sequence[bytes],
) -> bool:
    """Record an unfinished erasure that only the table remembers; False if the ledger has it already."""
    values = {"id": erasure, "corpus": corpus, "reason": reason, "salt": salt, "requested_at": requested_at}
    row = connection.execute(query("copy_erasure"), {**values, "writer": this_process()}).fetchone()
    if row is not None:
        connection.execute(query("insert_erased_documents"), {"id": erasure, "hashes": list(key_hashes)})
    return row is not None


def read(connection: Connection, corpus: str, *, unfinished: bool = False) -> list[ErasureRow]:
    """The erasures of a corpus, or those of them that are not finished, oldest first."""
    return _read(connection, corpus, unfinished=unfinished)


def _read(
    connection: Connection, corpus: str, *, unfinished: bool = False, erasure: UUID | None = None
) -> list[ErasureRow]:
    with connection.cursor(row_factory=class_row(ErasureRow)) as cursor:
        values = {"corpus": corpus, "unfinished": unfinished, "id": erasure}
        return cursor.execute(query("read_erasures"), values).fetchall()


def erased_keys(connection: Connection, corpus: str) -> ErasedKeys:
    """The keys of the corpus that are not ingested again."""
    rows = connection.execute(query("erased_keys"), {"corpus": corpus})
    return ErasedKeys({bytes(row["salt"]): frozenset(map(bytes, row["hashes"])) for row in rows})


def check_not_erased(connection: Connection, saga: UUID) -> None:
    """Refuse the documents of a saga that were erased after they were planned.

    Raises:
        ConflictError: Plan again: the documents are not in the new plan.
    """
    erased = connection.execute(query("erased_documents"), {"saga": saga}).fetchall()
    if erased:
        found = counted(len(erased), "document")
        raise ConflictError(f"Saga {saga} has {found}, erased after it was planned")


def allow(connection: Connection, corpus: str, keys: Sequence[str]) -> list[str]:
    """Allow erased documents to be ingested again; return the keys among these that were erased."""
    return [key for key in keys if connection.execute(query("allow_erased"), {"corpus": corpus, "key": key}).fetchall()]


def take(
    connection: Connection, erasure: UUID, *, keys: Sequence[str] | None = None, fingerprints: bytes | None = None
) -> None:
    """Continue an erasure in this process, or begin it again because the documents are back.

    Args:
        connection: Connection of the caller's transaction.
        erasure: The erasure.
        keys: The documents to erase. None: those of the record.
        fingerprints: Their fingerprints. None: those of the record.
    """
    values = {"id": erasure, "writer": this_process(), "keys": None if keys is None else list(keys)}
    connection.execute(query("take_erasure"), {**values, "fingerprints": fingerprints})


def touch(connection: Connection, erasure: UUID) -> None:
    """Record that a process still works on the erasure."""
    connection.execute(query("touch_erasure"), {"id": erasure})


def note_search(
    connection: Connection, erasure: UUID, *, fingerprint_count: int, found: int, files: int, tables: int
) -> None:
    """Record the outcome of the search, and delete the keys and the fingerprints from the record."""
    values = {"id": erasure, "fingerprint_count": fingerprint_count, "found": found, "files": files, "tables": tables}
    connection.execute(query("note_search"), values)


def finish(connection: Connection, erasure: UUID) -> None:
    """Record that nothing is left to do."""
    with boundary(Boundary.ERASED):
        connection.execute(query("finish_erasure"), {"id": erasure})


def keys_by_hash(connection: Connection, corpus: str, salt: bytes, hashes: Collection[bytes]) -> list[str]:
    """The keys with these hashes that the catalog still has, in any state."""
    values = {"corpus": corpus, "salt": salt, "hashes": list(hashes)}
    return [row["key"] for row in connection.execute(query("keys_by_hash"), values)]


def content_hashes(connection: Connection, generation: str, keys: Sequence[str]) -> list[str]:
    """The hashes of the bytes of some documents, in any state."""
    values = {"generation": generation, "keys": list(keys)}
    return [row["content_hash"] for row in connection.execute(query("content_hashes"), values)]


def has_erased(connection: Connection, generation: str, erasure: UUID) -> bool:
    """Whether a version was published for an erasure, so that what was planned before cannot be published."""
    row = connection.execute(query("has_erased"), {"generation": generation, "id": erasure}).fetchone()
    return row is not None and row["found"]


def remove_rows(connection: Connection, generation: str, keys: Sequence[str]) -> dict[str, int]:
    """Delete the documents from all tables of a generation; return the numbers of rows by table."""
    values = {"generation": generation, "keys": list(keys)}
    return {table: connection.execute(query(name), values).rowcount for table, name in _OF_KEYS.items()}


def remove_results(connection: Connection, corpus: str) -> int:
    """Delete the results of the user's extensions that no document has; return how many."""
    return extension_results.forget_results(connection, corpus)


def tables_of(connection: Connection, schema: str) -> list[str]:
    """The tables of a schema that this role may read."""
    rows = connection.execute(query("tables_of_schema"), {"schema": schema})
    return [row["name"] for row in rows]


def rows_as_text(connection: Connection, schema: str, table: str) -> Iterator[str]:
    """Stream the rows of a table as Postgres prints them."""
    statement = sql.SQL("SELECT t::text AS row FROM {} t").format(sql.Identifier(schema, table))
    with connection.cursor(name="rows_as_text") as cursor:
        cursor.itersize = 500
        cursor.execute(statement)
        for row in cursor:
            yield row["row"] or ""
