"""Indices of a table: built in segments, each over some fragments, in no version before a publication adds them.

An index is one or more segments under one name. Rows of fragments that no segment covers are scanned, so a reader gets
the same rows with and without it; only the nearest vectors are found approximately. Lance masks what a segment says
about rows and fragments that are gone. A segment's folder has the id of the saga that built it, chosen before it is
written, so the ledger says who may still want it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import lance
from lance.bitmap import Bitmap
from lance.dataset import Index

from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import StagedFragment, fragment_of

# Lance's own default is twice this; smaller ones cost little to search and spare rows that are not near.
_ROWS_PER_PARTITION = 4096
_FLOATS_PER_CODE = 8


@dataclass(frozen=True, slots=True)
class IndexKind:
    """One index that a table shall have."""

    column: str
    kind: Literal["IVF", "INVERTED", "BLOOMFILTER"]
    least: int
    """Rows at which a first segment pays."""
    tail: int
    """Rows that may stay without a segment."""

    @property
    def name(self) -> str:
        """What Lance knows it by."""
        return f"{self.column}_idx"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an index, in a version."""

    uuid: str
    fragments: frozenset[int]
    """Ids of the fragments it was built over; some may be gone."""


@dataclass(frozen=True, slots=True)
class BuiltSegment:
    """A part of an index that is in no version yet."""

    kind: IndexKind
    index: Index
    files: Mapping[int, Sequence[str]]
    """Data files of each fragment that it covers."""


@dataclass(frozen=True, slots=True)
class Indexing:
    """A segment in, and those out that it replaces: a change of the table that changes no row."""

    built: BuiltSegment
    replaced: frozenset[str]
    """Ids of segments."""

    @property
    def added(self) -> Sequence[StagedFragment]:
        """No data file."""
        return ()

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`. Lance makes no conflict of this and a change of rows; the publication's own fences do."""
        return lance.LanceOperation.CreateIndex(
            new_indices=[self.built.index],
            removed_indices=[index for index in _indices(base) if index.uuid in self.replaced],
        )

    def fits(self, base: lance.LanceDataset) -> bool:
        """Whether the base still has what was replaced, nothing else covers the same, and the fragments are the same.

        A fragment's id alone says little: after a rollback, another one may have it.
        """
        there = segments(base, self.built.kind.name)
        covered = {number for segment in there if segment.uuid not in self.replaced for number in segment.fragments}
        present = self.built.files.keys() & set(base.fragment_ids())
        return (
            self.replaced <= {segment.uuid for segment in there}
            and not covered & present
            and all(data_files(base, number) == self.built.files[number] for number in present)
        )


def segments(dataset: lance.LanceDataset, name: str) -> list[Segment]:
    """Segments of an index, none if there is no such index."""
    return [
        Segment(str(part.uuid), frozenset(part.fragment_ids))
        for found in dataset.describe_indices()
        if found.name == name
        for part in found.segments
    ]


def build(dataset: lance.LanceDataset, kind: IndexKind, numbers: Sequence[int], saga: UUID) -> BuiltSegment:
    """Write a segment over some fragments into the folder that bears the saga's id."""
    rows = sum(fragment_of(dataset, number).count_rows() for number in numbers)
    with boundary(Boundary.INDEX_BUILT):
        index = dataset.create_index_uncommitted(
            kind.column,
            name=kind.name,
            replace=True,  # of a name; nothing is replaced before the commit says so
            fragment_ids=list(numbers),
            index_uuid=str(saga),
            **_options(dataset, kind, rows),
        )
        if kind.kind == "INVERTED":
            # It comes in parts; merging them keeps the id.
            index = dataset.merge_existing_index_segments([index])
    return BuiltSegment(kind, index, {number: data_files(dataset, number) for number in numbers})


def data_files(dataset: lance.LanceDataset, number: int) -> list[str]:
    """Names of a fragment's data files, which are never used twice."""
    return [file.path for file in fragment_of(dataset, number).metadata.files]


def _options(dataset: lance.LanceDataset, kind: IndexKind, rows: int) -> dict[str, Any]:
    if kind.kind != "IVF":
        return {"index_type": kind.kind}
    width = dataset.schema.field(kind.column).type.list_size
    options: dict[str, Any] = {"metric": "cosine", "num_partitions": math.ceil(rows / _ROWS_PER_PARTITION)}
    if width % _FLOATS_PER_CODE:
        return {**options, "index_type": "IVF_FLAT"}
    return {**options, "index_type": "IVF_PQ", "num_sub_vectors": width // _FLOATS_PER_CODE}


def _indices(dataset: lance.LanceDataset) -> Iterable[Index]:
    """The segments as Lance takes them back."""
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
