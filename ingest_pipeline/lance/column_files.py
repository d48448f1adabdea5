"""New values of columns without new rows: a data file beside the others of a fragment, and the columns themselves.

A fragment may have several data files, each with some columns of the same rows. A column that is rewritten moves to a
new file that is named after its saga, and the old file keeps it as dead weight until a compaction. No vector is read or
written. Indices over a rewritten column stop covering the fragment, and readers scan it until maintenance indexes it
again. Deletions are beside the data files, so a file stays valid if rows are deleted before it is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

import lance
import numpy as np
import pyarrow as pa
from lance.fragment import DataFile, FragmentMetadata, LanceFragment
from lance.schema import LanceSchema

from ingest_pipeline.columns.declaration import Column, Values, columns_of
from ingest_pipeline.columns.values import to_arrow
from ingest_pipeline.lance.changes import StagedFragment, fragment_of, with_fields

if TYPE_CHECKING:
    from ingest_pipeline.lance.table import LanceTable

# Lance's mark of a column of a data file that another file of the fragment has replaced.
_REPLACED = -2
_ROW_BITS = 32
# Keys of the fields `id` and `parent_id` of the message `Field` in the format of Lance.
_ID, _PARENT = b"\x18", b"\x20"


@dataclass(frozen=True, slots=True)
class ColumnFile:
    """A data file with some columns of all rows of a fragment, which is in no version yet."""

    name: str
    fragment: int
    columns: tuple[str, ...]
    beside: tuple[str, ...]
    """Names of the data files that the fragment had when the file was written."""
    row_count: int


@dataclass(frozen=True, slots=True)
class NewValues:
    """New values of some documents."""

    columns: Sequence[Column]
    """The columns to write. The table may lack them, or have them with another type."""
    documents: Mapping[str, Values]
    """The values of each document to change, by key."""
    saga: UUID | None = None
    """The saga of the changed rows. None: sagas stay as they are."""
    chunks: Mapping[str, Values] = field(default_factory=dict[str, Values])
    """The values of chunks, by id, for those of the columns that are of chunks. Other chunks keep theirs."""


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """Rewrites columns of some fragments. No row is added or removed."""

    files: Sequence[ColumnFile]

    @property
    def added(self) -> Sequence[StagedFragment]:
        """No fragment is added."""
        return ()

    def fits(self, base: lance.LanceDataset) -> bool:
        """Whether the fragments still have the data files that they had when the new ones were written."""
        present = set(base.fragment_ids())
        return all(
            file.fragment in present and tuple(data_files(fragment_of(base, file.fragment))) == file.beside
            for file in self.files
        )

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`."""
        updated = {
            file.fragment: with_column_file(base, fragment_of(base, file.fragment).metadata, file)
            for file in self.files
        }
        return lance.LanceOperation.Update(
            updated_fragments=list(updated.values()),
            fields_modified=rewritten_fields(base, self.files),
            update_mode="rewrite_columns",
        )


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """Columns that are dropped and columns that are added at the end, in one version.

    A column that changes its type is dropped and added. Earlier versions keep the columns that are dropped.
    """

    dropped: Sequence[str]
    columns: Sequence[Column]
    """The columns that are added."""
    files: Sequence[ColumnFile] = ()
    """Files of values of all added columns. Without one, the rows of a fragment have none."""

    @property
    def added(self) -> Sequence[StagedFragment]:
        """No fragment is added."""
        return ()

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`. Columns keep their ids, and a new column gets ids that no column ever had."""
        schema, ids = _changed_schema(base, self.dropped, self.columns)
        fragments = {fragment.fragment_id: fragment.metadata for fragment in base.get_fragments()}
        for file in self.files:
            made = _data_file(base, file.name, [number for name in file.columns for number in ids[name]], file.fragment)
            metadata = fragments[file.fragment]
            fragments[file.fragment] = replace(metadata, files=[*metadata.files, made])
        return lance.LanceOperation.Merge(list(fragments.values()), schema)


def stage_columns(
    table: LanceTable, version: int, number: int, name: str, new: NewValues
) -> tuple[ColumnFile, dict[str, int]]:
    """Write new values of columns for the documents of a fragment. The file is in no version before a commit.

    Args:
        table: The table.
        version: The version to read the other rows from.
        number: Id of the fragment.
        name: File name, as in `LanceTable.stage_batches`.
        new: The new values.

    Returns:
        The file, and how many rows of each document it has new values for.
    """

    def read(base: lance.LanceDataset) -> tuple[pa.Table, dict[str, int], tuple[str, ...]]:
        return *values_of(base, number, new), tuple(data_files(fragment_of(base, number)))

    rows, found, beside = table.read(version, read)
    staged = table.stage(name, rows)
    return ColumnFile(name, number, tuple(rows.column_names), beside, staged.row_count), found


def values_of(base: lance.LanceDataset, number: int, new: NewValues) -> tuple[pa.Table, dict[str, int]]:
    """All rows of a fragment, deleted ones included, with new values for those of some documents.

    Args:
        base: The table at a version.
        number: Id of the fragment.
        new: The new values.

    Returns:
        The columns, and how many rows of each document the fragment has.
    """
    columns, documents, saga = new.columns, new.documents, None if new.saga is None else str(new.saga)
    fragment = fragment_of(base, number)
    there = columns_of(base.schema, ()).columns
    present = [column.name for column in columns if column in there]
    ids = ["id"] if any(column.of_chunk for column in columns) else []
    rows = fragment.scanner(
        columns=["document", *ids, *(["saga"] if saga else []), *present], with_row_address=True
    ).to_table()
    positions = rows["_rowaddr"].to_numpy() & ((1 << _ROW_BITS) - 1)
    encoded = rows["document"].combine_chunks().dictionary_encode()
    keys = list(documents)
    number_of = {key: index for index, key in enumerate(keys)}
    codes = np.array([number_of.get(key, -1) for key in encoded.dictionary.to_pylist()], np.int64)
    changed = codes[encoded.indices.to_numpy(zero_copy_only=False)] if len(rows) else np.empty(0, np.int64)
    sources = RowSources(fragment.metadata.physical_rows, positions, changed)
    arrays: dict[str, pa.Array] = {}
    if saga:
        arrays["saga"] = sources.take(rows["saga"].combine_chunks(), pa.array([saga] * len(keys), pa.string()), "")
    of_chunks, chunks = _of_chunks(rows, sources, new)
    for column in columns:
        kind = column.field.type
        old = rows[column.name].combine_chunks() if column.name in present else pa.nulls(len(rows), kind)
        found_in, found = (of_chunks, chunks) if column.of_chunk else (sources, [documents[key] for key in keys])
        values = [to_arrow(column.type, one.get(column.name)) for one in found]
        arrays[column.name] = found_in.take(old, pa.array(values, kind), None)
    numbers, counts = np.unique(changed[changed >= 0], return_counts=True)
    fields = [base.schema.field("saga")] if saga else []
    table = pa.Table.from_arrays(
        list(arrays.values()), schema=pa.schema([*fields, *(column.field for column in columns)])
    )
    return table, {keys[index]: int(count) for index, count in zip(numbers, counts, strict=True)}


def _of_chunks(rows: pa.Table, sources: RowSources, new: NewValues) -> tuple[RowSources, list[Values]]:
    """The same rows with the numbers of their chunks, and the new values of the chunks by number."""
    ids = rows["id"].to_pylist() if new.chunks and "id" in rows.column_names else []
    changed = [row for row, number in enumerate(ids) if number in new.chunks]
    numbers = np.full(len(rows), -1, np.int64)
    numbers[changed] = np.arange(len(changed))
    return replace(sources, changed=numbers), [new.chunks[ids[row]] for row in changed]


@dataclass(frozen=True, slots=True)
class RowSources:
    """Where each row of a fragment takes its values from."""

    rows: int
    """Rows of the data files, deleted ones included."""
    positions: np.ndarray[Any, np.dtype[np.uint64]]
    """Position of each row that is not deleted."""
    changed: np.ndarray[Any, np.dtype[np.int64]]
    """Number of the document or chunk with new values for each of them, -1 for none."""

    def take(self, old: pa.Array, new: pa.Array, filler: object) -> pa.Array:
        """A column of all rows: new values where there are some, and the filler for deleted rows."""
        indices = np.full(self.rows, len(old) + len(new), np.int64)
        kept = np.arange(len(old), dtype=np.int64)
        indices[self.positions] = np.where(self.changed >= 0, len(old) + self.changed, kept)
        return pa.concat_arrays([old, new, pa.array([filler], old.type)]).take(pa.array(indices))


def data_files(fragment: LanceFragment) -> list[str]:
    """Names of a fragment's data files. A name is never used twice."""
    return [file.path for file in fragment.metadata.files]


def rewritten_fields(base: lance.LanceDataset, files: Sequence[ColumnFile]) -> list[int]:
    """Ids of the columns in some files. Lance removes their fragments from the indices over these columns."""
    names = {name for file in files for name in file.columns}
    return sorted(number for name in names for number in _field_ids(base, name))


def with_column_file(base: lance.LanceDataset, metadata: FragmentMetadata, file: ColumnFile) -> FragmentMetadata:
    """The fragment with the columns of the file instead of those that it had."""
    ids = [number for name in file.columns for number in _leaf_ids(base, name)]
    old = [
        with_fields(one, [_REPLACED if number in ids else number for number in one.fields]) for one in metadata.files
    ]
    made = _data_file(base, file.name, ids, file.fragment)
    return replace(metadata, files=[*(one for one in old if set(one.fields) != {_REPLACED}), made])


def _data_file(base: lance.LanceDataset, name: str, ids: Sequence[int], number: int) -> DataFile:
    like = fragment_of(base, number).metadata.files[0]
    return DataFile(
        name, list(ids), list(range(len(ids))), like.file_major_version, like.file_minor_version, None, like.base_id
    )


def _leaf_ids(base: lance.LanceDataset, name: str) -> list[int]:
    """Ids of the parts of a column that a data file stores: of a list, its items."""
    ids = _field_ids(base, name)
    return ids if len(ids) == 1 else ids[1:]


def _field_ids(base: lance.LanceDataset, name: str) -> list[int]:
    field = base.lance_schema.field(name)
    assert field is not None  # noqa: S101  the caller took the name from this version
    return _ids(field)


def _ids(field: Any) -> list[int]:  # noqa: ANN401  Lance exports no name of the type
    return [field.id(), *(number for child in field.children() for number in _ids(child))]


def _changed_schema(
    base: lance.LanceDataset, dropped: Sequence[str], columns: Sequence[Column]
) -> tuple[LanceSchema, dict[str, list[int]]]:
    """The columns with new ones at the end, and the ids of the parts of a new one that a data file stores."""
    make, metadata, _ = _pickled(base.lance_schema)
    parts = [part for name, found in _by_field(base.lance_schema) if name not in dropped for part in found]
    added = LanceSchema.from_pyarrow(pa.schema([column.field for column in columns]))
    following = count(base.max_field_id + 1)
    stored: dict[str, list[int]] = {}
    for name, new in _by_field(added):
        ids = [next(following) for _ in new]
        stored[name] = ids[-1:]
        parents = [None, *ids]
        parts += [_numbered(part, number, parent) for part, number, parent in zip(new, ids, parents, strict=False)]
    return make(metadata, *parts), stored


def _pickled(schema: LanceSchema) -> tuple[Any, str, list[bytes]]:
    """A schema in its pickled form, the only one that keeps ids: a function, metadata, and each field as a message."""
    reduced: Any = schema.__reduce__()
    make, (metadata, *parts) = reduced
    return make, metadata, parts


def _by_field(schema: LanceSchema) -> Iterator[tuple[str, list[bytes]]]:
    """Each column with the messages of its parts: itself and, of a list, the items."""
    parts = iter(_pickled(schema)[2])
    for column in schema.fields():
        yield column.name(), [next(parts) for _ in _ids(column)]


def _numbered(part: bytes, number: int, parent: int | None) -> bytes:
    """The message with other ids. Of a value that occurs twice, the last one counts."""
    return part + _ID + _varint(number) + (b"" if parent is None else _PARENT + _varint(parent))


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
