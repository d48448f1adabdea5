"""The catalog's side of an audit: documents with their expected chunk counts, and chunks as arrays, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns
from ingest_pipeline.lance.checks.column_audit import add_hash, chunk_values_hash, values_hash
from ingest_pipeline.lance.checks.fingerprints import Words, row_hashes
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query

_Rows = np.ndarray[Any, np.dtype[np.void]]
_FIELDS = {
    "document": ">i8", "id": "2>u8", "ordinal": ">i4", "start": ">i8", "end": ">i8", "text_hash": "2>u8",
    "saga": "2>u8", "page": ">i4", "last_page": ">i4", "heading": "2>u8",
}  # fmt: skip
# A row in COPY's binary format: the number of fields, then each field after its length.
_ROW = np.dtype(
    [("fields", ">i2"), *(part for name, kind in _FIELDS.items() for part in ((f"{name}_", ">i4"), (name, kind)))]
)
_HEADER_BYTES = 19
_BLOCK_BYTES = _ROW.itemsize * 50_000


@dataclass(frozen=True, slots=True)
class ExpectedDocuments:
    """All documents of the catalog at a version, in the order of their numbers."""

    keys: dict[str, int]
    """The number of each document, by key."""
    numbers: dict[int, int]
    """The number of each document, by the 64-bit hash of its key that chunks have."""
    chunk_counts: npt.NDArray[np.int64]
    columns: npt.NDArray[np.uint64]
    """A hash of the values of each document's columns."""
    chunk_columns: npt.NDArray[np.uint64]
    """The sum of the hashes of the values of each document's chunks."""


def expected_documents(
    connection: Connection, generation: str, version: int, columns: Columns = NO_COLUMNS
) -> ExpectedDocuments:
    """Read the documents at a version.

    Args:
        connection: Connection of the caller's transaction.
        generation: Generation of the documents.
        version: The version.
        columns: The user's columns that the table has at the version.
    """
    hashes: list[int] = []
    keys: dict[str, int] = {}
    numbers: dict[int, int] = {}
    counts: list[int] = []
    of_documents = columns.of_documents
    with connection.cursor(name="expected_documents") as cursor:
        cursor.execute(query("expected_documents"), {"generation": generation, "version": version})
        for row in cursor:
            numbers.setdefault(row["place"], len(keys))
            keys[row["key"]] = len(keys)
            counts.append(row["chunk_count"])
            hashes.append(values_hash(of_documents.conform(row["columns"])))
    sums = np.zeros(len(keys), np.uint64)
    if of_chunks := columns.of_chunks:
        with connection.cursor(name="chunk_columns") as cursor:
            cursor.execute(query("chunk_columns"), {"generation": generation, "version": version})
            for row in cursor:
                add_hash(
                    sums, numbers[row["place"]], chunk_values_hash(str(row["id"]), of_chunks.conform(row["columns"]))
                )
    return ExpectedDocuments(keys, numbers, np.array(counts, np.int64), np.array(hashes, np.uint64), sums)


def chunk_hashes(
    connection: Connection, generation: str, version: int, documents: ExpectedDocuments
) -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
    """Read the chunks at a version in blocks: the document number and the hash of each chunk, shape (n,) both."""
    for rows in _blocks(connection, generation, version):
        hashed, codes = np.unique(rows["document"], return_inverse=True)
        numbers = np.array([documents.numbers[int(key_hash)] for key_hash in hashed], np.int64)[codes]
        uuids = [rows[name].astype(np.uint64) for name in ("id", "text_hash", "saga", "heading")]
        counts = (rows[name].astype(np.int64) for name in ("ordinal", "start", "end", "page", "last_page"))
        yield numbers, row_hashes(uuids, *counts)


def _blocks(connection: Connection, generation: str, version: int) -> Iterator[_Rows]:
    values = {"generation": generation, "version": version}
    waiting = bytearray()
    to_skip = _HEADER_BYTES
    with connection.cursor() as cursor, cursor.copy(query("expected_chunks"), values) as copy:
        for part in copy:
            waiting += part
            if to_skip and len(waiting) >= to_skip:
                del waiting[:to_skip]
                to_skip = 0
            if len(waiting) >= _BLOCK_BYTES:
                yield _whole_rows(waiting)
    if len(waiting) >= _ROW.itemsize:
        yield _whole_rows(waiting)


def _whole_rows(waiting: bytearray) -> _Rows:
    """Take the complete rows out of the buffer, and leave a partial row or the end mark in it."""
    size = len(waiting) // _ROW.itemsize * _ROW.itemsize
    rows = np.frombuffer(bytes(waiting[:size]), _ROW)
    del waiting[:size]
    return rows
