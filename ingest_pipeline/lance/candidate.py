"""The table as a change would make it, without making a version: what gates search and read.

A shallow clone at the base version has its metadata only, in the folder of the saga, and refers to the data files and
indices of the table. The change is committed to the clone. So neither a number of a version is used nor a file written
among those of the versions, and whatever a dead process leaves is found by the sweep under the id of its saga. A search
of the clone reads what a search of the published version would: the same files, the same indices, and the rows that no
index covers yet.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

import lance
import pyarrow as pa
from lance.file import LanceFileSession
from lance.fragment import DataFile, FragmentMetadata, LanceFragment

from ingest_pipeline.errors import TableUnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Change, StagedFragment
from ingest_pipeline.lance.files.table_files import translated
from ingest_pipeline.lance.filters import one_of

_CANDIDATE = "candidate.lance"
R = TypeVar("R")
Location = tuple[str, int, Mapping[str, str]]
"""The uri of a table, a version, and what Lance needs to reach the store."""


def open_dataset(location: Location) -> lance.LanceDataset:
    """Open a table at a location."""
    uri, version, options = location
    return lance.dataset(uri, version=version, storage_options=dict(options))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table that is not published."""

    dataset: lance.LanceDataset
    base: lance.LanceDataset
    """The version that it is a change of."""
    staged: frozenset[str]
    """Names of the data files that the change adds."""
    options: Mapping[str, str]
    """What Lance needs to reach the store."""

    @property
    def location(self) -> Location:
        """Where another process can open the table while the block runs."""
        return self.dataset.uri, self.dataset.version, self.options

    @property
    def base_location(self) -> Location:
        """Where another process can open the base version."""
        return self.base.uri, self.base.version, self.options

    def read(self, reader: Callable[[lance.LanceDataset], R]) -> R:
        """Apply a function to the table."""
        with translated(self.base.uri):
            return reader(self.dataset)

    def read_base(self, reader: Callable[[lance.LanceDataset], R]) -> R:
        """Apply a function to the base version."""
        with translated(self.base.uri):
            return reader(self.base)

    def added(self, columns: Sequence[str]) -> Iterable[pa.RecordBatch]:
        """The rows that the change adds, a batch at a time."""
        fragments = [one for one in self.dataset.get_fragments() if one.metadata.files[0].path in self.staged]
        if fragments:
            yield from self.dataset.scanner(columns=list(columns), fragments=fragments).to_batches()

    def replaced(self, columns: Sequence[str], documents: Sequence[str]) -> Iterable[pa.RecordBatch]:
        """The rows of some documents at the base version, a batch at a time."""
        if documents and self.base.fragment_ids():
            predicate = one_of("document", documents)
            yield from self.base.scanner(columns=list(columns), filter=predicate).to_batches()


@contextmanager
def candidate(base: lance.LanceDataset, change: Change, saga: UUID, options: dict[str, str]) -> Generator[Candidate]:
    """Make the table of a change for the time of a block.

    Args:
        base: The table at the version that the change is made on.
        change: The change.
        saga: The saga that prepared it.
        options: What Lance needs to reach the store.

    Raises:
        TableUnavailableError: The store failed.
        GenerationRetiredError: The table has other columns than the prepared files.
    """
    folder = f"_indices/{saga}/{_CANDIDATE}"
    uri = f"{base.uri}/{folder}"
    try:
        with translated(base.uri), boundary(Boundary.CANDIDATE_MADE):
            clone = base.shallow_clone(uri, base.version, options)
            made = lance.LanceDataset.commit(
                clone, _operation(base, clone, change), read_version=clone.version, storage_options=options
            )
        yield Candidate(made, base, frozenset(staged.name for staged in change.added), options)
    finally:
        _remove(base.uri, folder, options)


def _operation(
    base: lance.LanceDataset, clone: lance.LanceDataset, change: Change
) -> lance.LanceOperation.BaseOperation:
    """The change as an operation on the clone, whose new data files are in the folder of the base."""
    removal = replace(change, added=()).operation(clone)
    assert isinstance(removal, lance.LanceOperation.Update)  # noqa: S101  of `Change`
    number = next(iter(clone.base_paths()), None)
    return lance.LanceOperation.Update(
        removed_fragment_ids=removal.removed_fragment_ids,
        updated_fragments=removal.updated_fragments,
        new_fragments=[_fragment(base, staged, number) for staged in change.added],
    )


def _fragment(base: lance.LanceDataset, staged: StagedFragment, folder: int | None) -> FragmentMetadata:
    metadata = LanceFragment.create_from_file(staged.name, base, 0)
    lists = {field.id() for field in base.lance_schema.fields() if field.children()}
    return replace(metadata, files=[_placed(file, lists, folder) for file in metadata.files])


def _placed(file: DataFile, lists: set[int], folder: int | None) -> DataFile:
    fields = [number for number in file.fields if number not in lists]
    return DataFile(
        file.path, fields, file.column_indices, file.file_major_version, file.file_minor_version, file.file_size_bytes,
        folder,
    )  # fmt: skip


def _remove(uri: str, folder: str, options: dict[str, str]) -> None:
    """Remove the clone. If the store fails, the next sweep after the end of the saga removes it."""
    try:
        with translated(uri), boundary(Boundary.CANDIDATE_REMOVED):
            files = LanceFileSession(uri, storage_options=options)
            for name in files.list(folder):
                files.delete_file(name)
    except TableUnavailableError:
        return
