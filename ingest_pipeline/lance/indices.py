"""Indices of a table, which are built in segments over some fragments. A publication adds a segment to a version.

An index is one or more segments under one name. Rows of fragments that no segment covers are scanned, so a reader gets
the same rows with and without an index; only the nearest vectors are approximate. Lance masks the entries of a segment
for rows and fragments that no longer exist. A segment's folder is named after the saga that builds the segment, so the
ledger shows whether the folder is still needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import UUID

import lance
from lance.bitmap import Bitmap
from lance.dataset import Index
from lance.file import LanceFileSession

from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import StagedFragment, fragment_of
from ingest_pipeline.lance.column_files import data_files

# Lance's own default is twice this. Smaller partitions cost little to search and skip rows that are not near.
_ROWS_PER_PARTITION = 4096
_FLOATS_PER_CODE = 8
_CLONE = "clone.lance"


@dataclass(frozen=True, slots=True)
class IndexKind:
    """One index that a table should have."""

    column: str
    kind: Literal["IVF", "INVERTED", "BLOOMFILTER", "BITMAP", "BTREE", "LABEL_LIST"]
    least: int
    """The number of rows from which a first segment is built."""
    tail: int
    """The number of rows that may remain without a segment."""

    @property
    def name(self) -> str:
        """The name of the index in Lance."""
        return f"{self.column}_idx"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an index that is in a version."""

    uuid: str
    fragments: frozenset[int]
    """Ids of the fragments that the segment was built over. Some may no longer exist."""


@dataclass(frozen=True, slots=True)
class BuiltSegment:
    """A part of an index that is in no version yet."""

    kind: IndexKind
    index: Index
    files: Mapping[int, Sequence[str]]
    """Data files of each fragment that the segment covers."""


@dataclass(frozen=True, slots=True)
class Indexing:
    """A change that adds one segment and removes the segments that it replaces. No row changes."""

    built: BuiltSegment
    replaced: frozenset[str]
    """Ids of segments."""

    @property
    def added(self) -> Sequence[StagedFragment]:
        """No data file is added."""
        return ()

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`."""
        return lance.LanceOperation.CreateIndex(
            new_indices=[self.built.index],
            removed_indices=[index for index in indices(base) if index.uuid in self.replaced],
        )

    def fits(self, base: lance.LanceDataset) -> bool:
        """Whether the base still has the replaced segments and the same fragments, and no other segment covers them.

        A fragment's id is not enough: after a rollback, another fragment may have it.
        """
        existing = segments(base, self.built.kind.name)
        covered = {number for segment in existing if segment.uuid not in self.replaced for number in segment.fragments}
        present = self.built.files.keys() & set(base.fragment_ids())
        return (
            self.replaced <= {segment.uuid for segment in existing}
            and not covered & present
            and all(data_files(fragment_of(base, number)) == self.built.files[number] for number in present)
        )


def segments(dataset: lance.LanceDataset, name: str) -> list[Segment]:
    """Segments of an index; empty if there is no such index."""
    return [
        Segment(str(part.uuid), frozenset(part.fragment_ids))
        for found in dataset.describe_indices()
        if found.name == name
        for part in found.segments
    ]


def build(
    dataset: lance.LanceDataset,
    kind: IndexKind,
    numbers: Sequence[int],
    saga: UUID,
    storage_options: dict[str, str] | None = None,
) -> BuiltSegment:
    """Write a segment over some fragments into the folder that is named after the saga."""
    rows = sum(fragment_of(dataset, number).count_rows() for number in numbers)
    with boundary(Boundary.INDEX_BUILT):
        named: dict[str, Any] = {"index_uuid": str(saga)}
        table = dataset
        if kind.kind in {"LABEL_LIST", "BTREE"}:
            # Lance names the folder of these. In a clone, the folder is within that of the saga: if the process dies,
            # the ledger knows whose files these are, and the sweep removes them.
            named, table = {}, dataset.shallow_clone(_clone_of(dataset, saga), dataset.version, storage_options)
        index = table.create_index_uncommitted(
            kind.column,
            name=kind.name,
            replace=True,  # concerns the name; nothing is replaced before the commit
            fragment_ids=list(numbers),
            **named,
            **_options(dataset, kind, rows),
        )
        if kind.kind == "INVERTED":
            # Lance writes the segment in parts. Merging the parts keeps the id.
            index = dataset.merge_existing_index_segments([index])
        if index.uuid != str(saga):
            index = _moved(dataset, index, str(saga), storage_options)
    return BuiltSegment(kind, index, {number: data_files(fragment_of(dataset, number)) for number in numbers})


def _clone_of(dataset: lance.LanceDataset, saga: UUID) -> str:
    """Where a segment of this saga is built, if Lance names its folder. A clone has metadata only."""
    return f"{dataset.uri}/_indices/{saga}/{_CLONE}"


def _moved(dataset: lance.LanceDataset, index: Index, saga: str, storage_options: dict[str, str] | None) -> Index:
    """Move a segment from the clone into the folder of its saga, and remove the clone."""
    files = LanceFileSession(dataset.uri, storage_options=storage_options)
    folder = f"_indices/{saga}"
    with TemporaryDirectory() as local:
        for path in files.list(f"{folder}/{_CLONE}/_indices/{index.uuid}"):
            name = path.rpartition("/")[2]
            files.download_file(path, f"{local}/{name}")
            files.upload_file(f"{local}/{name}", f"{folder}/{name}")
    for path in files.list(f"{folder}/{_CLONE}"):
        files.delete_file(path)
    return replace(index, uuid=saga)


def _options(dataset: lance.LanceDataset, kind: IndexKind, rows: int) -> dict[str, Any]:
    if kind.kind != "IVF":
        return {"index_type": kind.kind}
    width = dataset.schema.field(kind.column).type.list_size
    options: dict[str, Any] = {"metric": "cosine", "num_partitions": math.ceil(rows / _ROWS_PER_PARTITION)}
    if width % _FLOATS_PER_CODE:
        return {**options, "index_type": "IVF_FLAT"}
    return {**options, "index_type": "IVF_PQ", "num_sub_vectors": width // _FLOATS_PER_CODE}


def indices(dataset: lance.LanceDataset) -> Iterable[Index]:
    """The existing segments as Lance expects them in a commit."""
    for found in dataset.describe_indices():
        for part in found.segments:
            yield Index(
                uuid=str(part.uuid),
                name=found.name,
                fields=list(found.fields),
                dataset_version=part.dataset_version_at_last_update,
                fragment_ids=Bitmap(part.fragment_ids),
                index_version=part.index_version,
            )
