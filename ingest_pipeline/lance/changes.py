"""The change that one publication makes to a table, as one operation of Lance, computed on its base version."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import lance
import pyarrow as pa
from lance.fragment import DataFile, FragmentMetadata, LanceFragment

from ingest_pipeline.errors import GenerationRetiredError
from ingest_pipeline.failpoints import Boundary, boundary

OWNER_PROPERTY = b"ingest_pipeline.owner"


@dataclass(frozen=True, slots=True)
class StagedFragment:
    """A data file that was written into the table's folder and is in no version yet."""

    name: str
    """File name: the saga's id, a hyphen, a counter."""
    row_count: int


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows that a change removes."""

    predicate: str
    """SQL filter over the table's columns that selects the rows."""
    fragments: Mapping[int, str] | None = None
    """The fragments that contain them, so that nothing else is read, each with the filter of its own rows. A filter of
    all rows, parsed again for each fragment, would take longer than the deletion. None: the whole table is scanned."""
    row_count: int | None = None
    """The expected number of these rows in those fragments. If the count differs, the whole table is scanned."""


def either(one: Removal | None, other: Removal | None) -> Removal | None:
    """The removal of the rows of both, which select different rows."""
    if one is None or other is None:
        return one or other
    fragments = None if one.fragments is None or other.fragments is None else _joined(one.fragments, other.fragments)
    count = None if one.row_count is None or other.row_count is None else one.row_count + other.row_count
    return Removal(_or(one.predicate, other.predicate), fragments, count)


def _joined(one: Mapping[int, str], other: Mapping[int, str]) -> dict[int, str]:
    both = {number: _or(one[number], other[number]) for number in one.keys() & other.keys()}
    return {**one, **other, **both}


def _or(one: str, other: str) -> str:
    return f"({one}) OR ({other})"


@dataclass(frozen=True, slots=True)
class FragmentState:
    """A fragment at a version."""

    number: int
    rows: int
    """Rows that are not deleted."""
    deleted: int
    """Deleted rows that the data file still contains."""
    signature: str
    """Equal signatures mean the same data files with the same rows deleted."""


class TableChange(Protocol):
    """The change that a publication makes to the table."""

    @property
    def added(self) -> Sequence[StagedFragment]:
        """Data files that the version adds."""
        ...

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """The change as an operation of Lance.

        Args:
            base: The table at the version on which the change is made.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """Rows added and rows removed."""

    added: Sequence[StagedFragment] = ()
    removed: Removal | None = None
    dropped: frozenset[int] = frozenset()
    """Ids of fragments that are removed whole, without being read."""
    schema: pa.Schema | None = None
    """The columns with which the files were written. None: they are not compared with those of the base."""

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`.

        Raises:
            GenerationRetiredError: The table has other columns than the files.
        """
        if self.schema is not None and self.added:
            check_columns(base, self.schema)
        deletion = _remove(base, self.removed, self.dropped)
        return update(base, self.added, [*sorted(self.dropped), *deletion.gone], deletion.updated)


def check_columns(base: lance.LanceDataset, schema: pa.Schema) -> None:
    """Refuse files whose columns are not those of the table.

    Raises:
        GenerationRetiredError: A column was added, dropped or changed since the files were written.
    """
    there, here = ({field.name: field.type for field in found} for found in (base.schema, schema))
    if there != here:
        changed = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        raise GenerationRetiredError(
            f"The columns {', '.join(changed)} of the table at {base.uri} were changed while a saga worked on it; "
            "nothing was published"
        )


@dataclass(frozen=True, slots=True)
class Compaction:
    """Whole fragments replaced by one data file with the same rows."""

    added: Sequence[StagedFragment]
    replaced: Sequence[int]
    """Ids of the fragments that are replaced."""
    schema: pa.Schema
    """The columns with which the file was written."""

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:
        """See `TableChange`.

        Raises:
            GenerationRetiredError: The table has other columns than the file.
        """
        check_columns(base, self.schema)
        return update(base, self.added, self.replaced)


@dataclass(frozen=True, slots=True)
class NewColumns:
    """Other columns for an empty table."""

    schema: pa.Schema
    owner: str
    added: Sequence[StagedFragment] = ()

    def operation(self, base: lance.LanceDataset) -> lance.LanceOperation.BaseOperation:  # noqa: ARG002  of the protocol
        """See `TableChange`."""
        return lance.LanceOperation.Overwrite(owned(self.schema, self.owner), [])


def owned(schema: pa.Schema, owner: str) -> pa.Schema:
    """The columns with the owner of the table in their metadata."""
    return schema.with_metadata({**(schema.metadata or {}), OWNER_PROPERTY: owner.encode()})


@dataclass(frozen=True, slots=True)
class _Deletion:
    """The fragments after a removal."""

    gone: list[int]
    updated: dict[int, FragmentMetadata]
    row_count: int


def update(
    base: lance.LanceDataset,
    added: Iterable[StagedFragment],
    gone: Sequence[int],
    updated: dict[int, FragmentMetadata] | None = None,
) -> lance.LanceOperation.Update:
    """One operation that adds data files, removes whole fragments, and changes others."""
    return lance.LanceOperation.Update(
        removed_fragment_ids=list(gone),
        updated_fragments=list((updated or {}).values()),
        new_fragments=[_new_fragment(base, staged.name) for staged in added],
    )


def _new_fragment(base: lance.LanceDataset, name: str) -> FragmentMetadata:
    """A fragment of one data file."""
    metadata = LanceFragment.create_from_file(name, base, 0)
    # Lance counts a list twice there, itself and its items, although a data file has one column for both.
    lists = {field.id() for field in base.lance_schema.fields() if field.children()}
    files = [with_fields(file, [number for number in file.fields if number not in lists]) for file in metadata.files]
    return replace(metadata, files=files)


def with_fields(file: DataFile, fields: list[int]) -> DataFile:
    """The data file with other field ids."""
    return DataFile(
        file.path, fields, file.column_indices, file.file_major_version, file.file_minor_version, file.file_size_bytes,
        file.base_id,
    )  # fmt: skip


def fragment_of(dataset: lance.LanceDataset, number: int) -> LanceFragment:
    """A fragment by its id, which the caller took from this very version."""
    fragment = dataset.get_fragment(number)
    assert fragment is not None  # noqa: S101  see above
    return fragment


def chosen(dataset: lance.LanceDataset, numbers: Iterable[int] | None) -> list[LanceFragment] | None:
    """Fragments by their ids; ids that the version does not have are ignored. None: all."""
    if numbers is None:
        return None
    present = set(dataset.fragment_ids())
    return [fragment_of(dataset, number) for number in sorted(set(numbers) & present)]


def state_of(fragment: LanceFragment) -> FragmentState:
    """The state of a fragment at its version."""
    metadata, deleted = fragment.metadata, fragment.num_deletions
    return FragmentState(metadata.id, metadata.physical_rows - deleted, deleted, signature(fragment))


def signature(fragment: LanceFragment) -> str:
    """A string that is equal for equal data files with the same rows deleted."""
    return json.dumps(fragment.metadata.to_json(), sort_keys=True)


def _remove(dataset: lance.LanceDataset, removal: Removal | None, dropped: frozenset[int]) -> _Deletion:
    if removal is None:
        return _Deletion([], {}, 0)
    present = set(dataset.fragment_ids())
    if removal.fragments is not None and removal.fragments.keys() <= present:
        deletion = _delete(dataset, removal.fragments)
        if deletion.row_count == removal.row_count:
            return deletion
    # Another program rewrote the fragments that the catalog names, so the rows are elsewhere: scan the whole table.
    containing = _fragments_containing(
        dataset, removal.predicate, chosen(dataset, present - dropped) if dropped else None
    )
    return _delete(dataset, dict.fromkeys(containing, removal.predicate))


def _fragments_containing(
    dataset: lance.LanceDataset, predicate: str, fragments: list[LanceFragment] | None
) -> set[int]:
    if fragments == []:
        return set()
    scanner = dataset.scanner(columns=[], filter=predicate, with_row_address=True, fragments=fragments)
    return {address >> 32 for address in scanner.to_table()["_rowaddr"].to_pylist()}


def _delete(dataset: lance.LanceDataset, predicates: Mapping[int, str]) -> _Deletion:
    gone: list[int] = []
    updated: dict[int, FragmentMetadata] = {}
    row_count = 0
    for number in sorted(predicates):
        fragment = fragment_of(dataset, number)
        before = fragment.metadata
        with boundary(Boundary.ROWS_REMOVED):
            after = fragment.delete(predicates[number])
        row_count += before.num_rows - (0 if after is None else after.num_rows)
        if after is None:
            gone.append(number)
        else:
            updated[number] = after
    return _Deletion(gone, updated, row_count)
