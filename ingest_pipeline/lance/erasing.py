"""What erasing documents needs of a table besides publications: data files as they are on disk, and notes beside them.

A deleted row stays in its data file, and a data file that is in no version may have rows too. So the files themselves
are read, whatever the versions say of them. The note of an erasure is a small file in the table's folder: it comes back
with the table, and survives the loss of the ledger.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileReader, LanceFileSession

from ingest_pipeline.errors import TableUnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.column_files import data_files
from ingest_pipeline.lance.files.flush import folder_of
from ingest_pipeline.lance.files.spool import write_durably
from ingest_pipeline.lance.files.table_files import translated
from ingest_pipeline.lance.indices import Segment, indices
from ingest_pipeline.lance.table import LanceTable

NOTES = "_erasures"
"""The folder of the notes, within the table's."""
_DATA = "data/"
_LANCE = ".lance"
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class SegmentRemoval:
    """A change that removes segments of indices. Their rows are scanned until they are indexed again."""

    removed: frozenset[str]
    """Ids of segments."""

    @property
    def added(self) -> Sequence[StagedFragment]:
        """No data file is added."""
        return ()

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`."""
        gone = [index for index in indices(base) if index.uuid in self.removed]
        return lance.LanceOperation.CreateIndex(new_indices=[], removed_indices=gone)


@dataclass(frozen=True, slots=True)
class VersionContent:
    """The files that a version reads."""

    files: frozenset[str]
    """Data files, relative to the table's folder."""
    fragments: Mapping[int, frozenset[str]]
    """The data files of each fragment."""
    segments: Mapping[str, Sequence[Segment]]
    """Segments by the name of their index."""


def content_of(table: LanceTable, version: int) -> VersionContent:
    """The files that a version reads."""
    dataset = table.at(version)
    with translated(table.uri):
        fragments = {
            fragment.fragment_id: frozenset(f"{_DATA}{name}" for name in data_files(fragment))
            for fragment in dataset.get_fragments()
        }
        segments = {
            found.name: [Segment(str(part.uuid), frozenset(part.fragment_ids)) for part in found.segments]
            for found in dataset.describe_indices()
        }
    return VersionContent(frozenset[str]().union(*fragments.values()), fragments, segments)


def rows_of(
    table: LanceTable, name: str, keys: Collection[str], columns: Sequence[str] = ("document",)
) -> list[pa.Table]:
    """The rows of some documents in a data file, deleted ones included; empty if it has none.

    Args:
        table: The table.
        name: Name of the file, relative to the table's folder.
        keys: The documents.
        columns: The columns to read. A file that lacks the column `document` has values of other files' rows.
    """
    if not (name.startswith(_DATA) and name.endswith(_LANCE)):
        return []
    found: list[pa.Table] = []
    wanted = pa.array(list(keys), pa.string())
    for batch in read_file(table, name, columns):
        mask = pc.call_function("is_in", [batch.column("document")], options=pc.SetLookupOptions(wanted))
        rows = pa.Table.from_batches([batch]).filter(mask)
        if rows.num_rows:
            found.append(rows)
    return found


def keys_in(table: LanceTable, name: str) -> set[str]:
    """The documents that have rows in a data file, deleted rows included."""
    found: set[str] = set()
    if name.startswith(_DATA) and name.endswith(_LANCE):
        for batch in read_file(table, name, ("document",)):
            found.update(batch.column("document").unique().to_pylist())
    return found


def read_file(table: LanceTable, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read all rows of a file in Lance's format. Yields nothing if it is not one or was cut short.

    Args:
        table: The table.
        name: Name of the file, relative to the table's folder.
        columns: The columns to read, `document` among them. A file without that column has values of the rows of
            another file, and nothing is yielded. None: all columns.

    Raises:
        TableUnavailableError: The store does not answer.
    """
    options = storage_options_of(table)
    try:
        names = LanceFileReader(f"{table.uri}/{name}", options).metadata().schema.names
        if columns is not None and "document" not in names:
            return
        chosen = names if columns is None else [column for column in columns if column in names]
        reader = LanceFileReader(f"{table.uri}/{name}", options, columns=list(chosen))
        yield from reader.read_all(batch_size=_ROWS).to_batches()
    except (OSError, ValueError, RuntimeError):
        if not _is_readable(table):
            raise TableUnavailableError(f"The store of the LanceDB table at {table.uri} does not answer") from None


def storage_options_of(table: LanceTable) -> dict[str, str] | None:
    """What Lance needs to reach the store of a table."""
    return table.spool.storage_options


def read_bytes(table: LanceTable, name: str) -> bytes | None:
    """The content of a file of the table's folder; None if it is gone."""
    folder = folder_of(table.uri)
    try:
        if folder is not None:
            return (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    with translated(table.uri), tempfile.TemporaryDirectory() as local:
        files = _session(table)
        if not files.contains(name):
            return None
        files.download_file(name, f"{local}/copy")
        return Path(local, "copy").read_bytes()


def write_note(table: LanceTable, name: str, note: Mapping[str, Any]) -> None:
    """Write the note of an erasure into the table's folder. It is durable when the call returns."""
    content, path = json.dumps(note).encode(), f"{NOTES}/{name}.json"
    folder = folder_of(table.uri)
    with translated(table.uri), boundary(Boundary.ERASURE_NOTED):
        if folder is not None:
            write_durably(folder, folder / path, [memoryview(content)])
            return
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            _session(table).upload_file(file.name, path)


def read_notes(table: LanceTable) -> dict[str, Mapping[str, Any]]:
    """The notes of erasures in the table's folder, by name. A note that was cut short is ignored."""
    with translated(table.uri):
        names = [name for name in _session(table).list(NOTES) if name.endswith(".json")]
    notes: dict[str, Mapping[str, Any]] = {}
    for name in names:
        path = f"{NOTES}/{name.rpartition('/')[2]}"
        with suppress(ValueError):
            notes[Path(path).stem] = json.loads(read_bytes(table, path) or b"")
    return notes


def _session(table: LanceTable) -> LanceFileSession:
    return LanceFileSession(table.uri, storage_options=storage_options_of(table))


def _is_readable(table: LanceTable) -> bool:
    try:
        return table.latest_version() > 0
    except TableUnavailableError:
        return False
