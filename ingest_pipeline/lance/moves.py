"""Rows of edited documents that stay and only move: new ordinals and offsets in a small file beside each fragment.

An edit near the beginning of a large document moves all chunks after it. Their texts and vectors are neither read nor
written. Older versions keep the places that the rows had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest_pipeline.columns.declaration import Column, Values
from ingest_pipeline.columns.values import to_arrow
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.lance.changes import Change, Removal, check_columns, fragment_of
from ingest_pipeline.lance.column_files import (
    ColumnChange,
    ColumnFile,
    RowSources,
    data_files,
    rewritten_fields,
    with_column_file,
)
from ingest_pipeline.types import MovedChunks

if TYPE_CHECKING:
    from ingest_pipeline.lance.table import LanceTable

_PLACES = ("ordinal", "start_offset", "end_offset")
_ROW_BITS = 32
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MovedDocument:
    """The chunks of a document that keep their rows."""

    moved: Sequence[MovedChunks]
    """By ascending ordinal."""
    columns: Values
    """The values of the document's columns after the edit."""


@dataclass(frozen=True, slots=True)
class FragmentMoves:
    """Edited documents that have rows in one fragment."""

    documents: Mapping[str, MovedDocument]
    """By key."""
    saga: UUID
    """The saga of the rows from now on."""
    columns: Sequence[Column]
    """Columns of documents to write too, because a value of them changes."""
    schema: pa.Schema
    """The columns that the table is expected to have."""


@dataclass(slots=True)
class FoundRows:
    """The rows of a document in a fragment."""

    row_count: int = 0
    sizes: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    """Characters of the chunks that keep their rows."""


@dataclass(slots=True)
class StagedMoves:
    """What the edits of a saga change in fragments that are in the table."""

    documents: frozenset[str] = frozenset()
    """Keys of the edited documents. All rows of other documents are replaced."""
    files: list[ColumnFile] = field(default_factory=list[ColumnFile])
    """The new places."""
    fragments: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict[str, list[int]](list))
    """Ids of the fragments in which rows of each document stay."""
    removed: Removal | None = None
    """Rows that the edits replace. None: there are none."""


def stage_moves(
    table: LanceTable, version: int, number: int, name: str, moves: FragmentMoves
) -> tuple[ColumnFile | None, dict[str, FoundRows]]:
    """Write the new places of rows of a fragment. The file is in no version before a commit.

    Args:
        table: The table.
        version: The version to read the rows from.
        number: Id of the fragment.
        name: File name, as in `LanceTable.stage_batches`.
        moves: What moves.

    Returns:
        The file, None if no row of the documents stays, and the rows of each document.
    """

    def read(base: lance.LanceDataset) -> tuple[pa.Table, dict[str, FoundRows], tuple[str, ...]]:
        return *moved_rows(base, number, moves), tuple(data_files(fragment_of(base, number)))

    rows, found, beside = table.read(version, read)
    if not any(len(one.sizes) for one in found.values()):
        return None, found
    staged = table.stage(name, rows)
    return ColumnFile(name, number, tuple(rows.column_names), beside, staged.row_count), found


def moved_rows(base: lance.LanceDataset, number: int, moves: FragmentMoves) -> tuple[pa.Table, dict[str, FoundRows]]:
    """The places of all rows of a fragment, deleted ones included, as they are after the moves.

    Returns:
        The columns, and the rows of each document of the moves.

    Raises:
        GenerationRetiredError: The table has other columns than expected.
    """
    check_columns(base, moves.schema)
    names = [column.name for column in moves.columns]
    fragment = fragment_of(base, number)
    rows = fragment.scanner(columns=["document", "saga", *_PLACES, *names], with_row_address=True).to_table()
    positions = rows["_rowaddr"].to_numpy() & ((1 << _ROW_BITS) - 1)
    keys = list(moves.documents)
    owners = _owners(rows["document"].combine_chunks(), keys)
    places: dict[str, Numbers] = {name: rows[name].to_numpy().astype(np.int64) for name in _PLACES}
    found: dict[str, FoundRows] = {}
    for index, key in enumerate(keys):
        own = np.flatnonzero(owners == index)
        if len(own):
            found[key] = FoundRows(len(own), _move(places, own, moves.documents[key].moved))
    total = fragment.metadata.physical_rows
    sources = RowSources(total, positions, owners)
    saga = pa.array([str(moves.saga)] * len(keys), pa.string())
    arrays: list[pa.Array] = [sources.take(rows["saga"].combine_chunks(), saga, "")]
    arrays += [_whole(places[name], positions, total, base.schema.field(name).type) for name in _PLACES]
    for column in moves.columns:
        values = [to_arrow(column.type, moves.documents[key].columns.get(column.name)) for key in keys]
        old = rows[column.name].combine_chunks()
        arrays.append(sources.take(old, pa.array(values, column.field.type), None))
    fields = [base.schema.field(name) for name in ("saga", *_PLACES)]
    return pa.Table.from_arrays(arrays, schema=pa.schema([*fields, *(column.field for column in moves.columns)])), found


def _owners(documents: pa.Array, keys: Sequence[str]) -> Numbers:
    """The number of each row's document, -1 for other documents."""
    encoded = documents.dictionary_encode()
    number_of = {key: index for index, key in enumerate(keys)}
    codes = np.array([number_of.get(key, -1) for key in encoded.dictionary.to_pylist()], np.int64)
    return codes[encoded.indices.to_numpy(zero_copy_only=False)] if len(documents) else np.empty(0, np.int64)


def _move(places: Mapping[str, Numbers], own: Numbers, moved: Sequence[MovedChunks]) -> Numbers:
    """Move the rows of a document that stay, in place. Returns the sizes of their chunks."""
    if not moved:
        return np.empty(0, np.int64)
    firsts, lasts, ordinal_shifts, offset_shifts = np.array(
        [(one.first, one.last, one.ordinal_shift, one.offset_shift) for one in moved], np.int64
    ).T
    ordinals = places["ordinal"][own]
    run = np.searchsorted(firsts, ordinals, side="right") - 1
    stays = (run >= 0) & (ordinals < lasts[run])
    own, run = own[stays], run[stays]
    places["ordinal"][own] += ordinal_shifts[run]
    places["start_offset"][own] += offset_shifts[run]
    places["end_offset"][own] += offset_shifts[run]
    return places["end_offset"][own] - places["start_offset"][own]


def _whole(values: Numbers, positions: npt.NDArray[Any], total: int, kind: pa.DataType) -> pa.Array:
    """A column of all rows of a fragment. Deleted rows have 0."""
    column = np.zeros(total, np.int64)
    column[positions] = values
    return pa.array(column).cast(kind)


@dataclass(frozen=True, slots=True)
class Edit(Change):
    """Rows added, rows removed, and rows that get new places."""

    moved: Sequence[ColumnFile] = ()
    """The new places, in one file for each fragment."""

    def fits(self, base: lance.LanceDataset) -> bool:
        """Whether the fragments still have the data files that they had when the new places were written."""
        return ColumnChange(self.moved).fits(base)

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`.

        Raises:
            ConflictError: A fragment has other data files than when the new places were written.
            GenerationRetiredError: The table has other columns than the files.
        """
        if not self.moved:
            return Change.operation(self, base)
        if self.schema is not None:
            check_columns(base, self.schema)
        if not self.fits(base):
            raise ConflictError(f"Rows of the table at {base.uri} moved while edits of documents were prepared")
        operation = Change.operation(self, base)
        assert isinstance(operation, lance.LanceOperation.Update)  # noqa: S101  of `Change`
        updated = {metadata.id: metadata for metadata in operation.updated_fragments}
        for file in self.moved:
            metadata = updated.get(file.fragment) or fragment_of(base, file.fragment).metadata
            updated[file.fragment] = with_column_file(base, metadata, file)
        return replace(
            operation,
            updated_fragments=list(updated.values()),
            fields_modified=rewritten_fields(base, self.moved),
            update_mode="rewrite_columns",
        )
