"""The catalog's side of an audit, in blocks: documents with what they promise, and chunks as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest_pipeline.lance.fingerprints import Words, row_hashes
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query

_Rows = np.ndarray[Any, np.dtype[np.void]]
_FIELDS = {
    "document": ">i8", "id": "2>u8", "ordinal": ">i4", "start": ">i8", "end": ">i8", "text_hash": "2>u8", "saga": "2>u8"
}  # fmt: skip
# A row of COPY's binary form: the number of fields, then each with its length before it.
_ROW = np.dtype(
    [("fields", ">i2"), *(part for name, kind in _FIELDS.items() for part in ((f"{name}_", ">i4"), (name, kind)))]
)
_HEADER = 19
_BLOCK = _ROW.itemsize * 50_000


@dataclass(frozen=True, slots=True)
class Promised:
    """What the catalog says of all documents at a version, in the order of their numbers."""

    keys: dict[str, int]
    """Number of each document."""
    places: dict[int, int]
    """Number of a document by a 64-bit hash of its key, as chunks have it."""
    chunk_counts: npt.NDArray[np.int64]


def promised(connection: Connection, generation: str, version: int) -> Promised:
    """Documents at a version."""
    keys: dict[str, int] = {}
    places: dict[int, int] = {}
    counts: list[int] = []
    with connection.cursor(name="expected_documents") as cursor:
        cursor.execute(query("expected_documents"), {"generation": generation, "version": version})
        for row in cursor:
            places.setdefault(row["place"], len(keys))
            keys[row["key"]] = len(keys)
            counts.append(row["chunk_count"])
    return Promised(keys, places, np.array(counts, np.int64))


def chunk_hashes(
    connection: Connection, generation: str, version: int, documents: Promised
) -> Iterator[tuple[npt.NDArray[np.int64], Words]]:
    """Chunks at a version, a block at a time: the numbers of their documents, and a hash of each, shape (n,) both."""
    for rows in _blocks(connection, generation, version):
        hashed, codes = np.unique(rows["document"], return_inverse=True)
        numbers = np.array([documents.places[int(place)] for place in hashed], np.int64)[codes]
        uuids = [rows[name].astype(np.uint64) for name in ("id", "text_hash", "saga")]
        ordinal, start, end = (rows[name].astype(np.int64) for name in ("ordinal", "start", "end"))
        yield numbers, row_hashes(uuids, ordinal, start, end)


def _blocks(connection: Connection, generation: str, version: int) -> Iterator[_Rows]:
    values = {"generation": generation, "version": version}
    waiting = bytearray()
    to_skip = _HEADER
    with connection.cursor() as cursor, cursor.copy(query("expected_chunks"), values) as copy:
        for part in copy:
            waiting += part
            if to_skip and len(waiting) >= to_skip:
                del waiting[:to_skip]
                to_skip = 0
            if len(waiting) >= _BLOCK:
                yield _whole_rows(waiting)
    if len(waiting) >= _ROW.itemsize:
        yield _whole_rows(waiting)


def _whole_rows(waiting: bytearray) -> _Rows:
    """Take them out; a part of a row, or the end mark, stays."""
    size = len(waiting) // _ROW.itemsize * _ROW.itemsize
    rows = np.frombuffer(bytes(waiting[:size]), _ROW)
    del waiting[:size]
    return rows
