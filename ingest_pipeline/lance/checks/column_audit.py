"""The user's columns of a table as an audit reads them: one hash of the values for each document.

All rows of a document have the same values of its columns. A batch has few documents, so its rows are grouped by
document and values before they are converted one by one. Values of chunks are hashed with the id of the chunk, and
summed by document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest_pipeline.columns.declaration import Columns, canonical
from ingest_pipeline.columns.values import LIST, Value

# No value contains it.
_SEPARATOR = "\0"


def values_hash(values: Mapping[str, Value]) -> int:
    """Equal for equal values; unequal values have equal hashes once in 2**64."""
    return int.from_bytes(hashlib.sha256(canonical(values).encode()).digest()[:8], "big")


def chunk_values_hash(chunk: str, values: Mapping[str, Value]) -> int:
    """The hash of a chunk's values, 0 if it has none. The sum over a document is equal for equal chunks."""
    return values_hash({**values, _SEPARATOR: chunk}) if values else 0


def distinct_values(batch: pa.RecordBatch, columns: Columns) -> Iterator[tuple[str, dict[str, Value]]]:
    """The documents of some rows with their values. A document whose rows differ comes more than once."""
    arrays: dict[str, pa.Array] = {"document": batch.column("document")}
    for column in columns.columns:
        found = batch.column(column.name)
        if column.type == LIST:  # a list is no key of a group
            arrays[f"{column.name}_length"] = pc.call_function("list_value_length", [found])
            found = pc.call_function("binary_join", [found, pa.scalar(_SEPARATOR)])
        arrays[column.name] = found
    groups = pa.table(arrays).group_by(list(arrays)).aggregate([])
    for row in groups.to_pylist():
        for column in columns.columns:
            if column.type == LIST:
                row[column.name] = _items(row[column.name], row[f"{column.name}_length"])
        yield row["document"], columns.of_row(row)


def _items(joined: str | None, length: int | None) -> list[str] | None:
    if length is None:
        return None
    return (joined or "").split(_SEPARATOR) if length else []


@dataclass(slots=True)
class ColumnAudit:
    """Compares the values of the table with those of the catalog, a batch at a time."""

    columns: Columns
    numbers: Mapping[str, int]
    """The number of each document of the catalog, by key."""
    expected: npt.NDArray[np.uint64]
    """The hash of the values of each document, by its number."""
    expected_chunks: npt.NDArray[np.uint64]
    """The sum of the hashes of the values of each document's chunks, by its number."""
    suspects: set[int] = field(default_factory=set[int])
    """Numbers of documents whose values differ. Those whose chunks differ are known at the end, see `differing`."""
    _sums: npt.NDArray[np.uint64] = field(init=False)

    def __post_init__(self) -> None:
        self._sums = np.zeros_like(self.expected_chunks)

    def add(self, batch: pa.RecordBatch) -> None:
        """Compare some rows."""
        if of_documents := self.columns.of_documents:
            for key, values in distinct_values(batch, of_documents):
                number = self.numbers.get(key)
                if number is not None and int(self.expected[number]) != values_hash(values):
                    self.suspects.add(number)
        if of_chunks := self.columns.of_chunks:
            for row in batch.select(["id", "document", *of_chunks.names]).to_pylist():
                number = self.numbers.get(row["document"])
                if number is not None and (hashed := chunk_values_hash(row["id"], of_chunks.of_row(row))):
                    add_hash(self._sums, number, hashed)

    def differing(self) -> set[int]:
        """Numbers of all documents whose values differ, once every row was added."""
        return self.suspects | {int(number) for number in np.flatnonzero(self._sums != self.expected_chunks)}


def add_hash(sums: npt.NDArray[np.uint64], number: int, hashed: int) -> None:
    """Add the hash of a chunk's values to the sum of its document, modulo 2**64."""
    sums[number] = np.uint64((int(sums[number]) + hashed) % 2**64)
