"""Reads a LanceDB table at any of its versions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import lance
import pyarrow as pa
from lance.file import LanceFileSession

from ingest_pipeline.errors import TableDamagedError, TableUnavailableError, VersionGoneError
from ingest_pipeline.lance.changes import OWNER_PROPERTY, FragmentState, chosen, fragment_of, state_of
from ingest_pipeline.lance.checks.damage import DamagedFragment, damaged_fragments, may_be_damage
from ingest_pipeline.lance.column_files import ColumnChange
from ingest_pipeline.lance.files.table_files import TableFiles, translated
from ingest_pipeline.lance.indices import Indexing, IndexKind, Segment, segments
from ingest_pipeline.lance.moves import Edit
from ingest_pipeline.lance.versions.version_mark import VersionMark

_READ_AHEAD_BATCHES = 2
_MAX_NAMED = 5
R = TypeVar("R")


class TableReader(TableFiles):
    """A LanceDB table as its readers need it: marks, fragments, indices and rows at a version.

    Lance deletes the files of a version before its manifest, and a process may die in between. So a version that lacks
    files may be one that is not kept.

    Args:
        uri: Folder of the dataset, as in `TableFiles`.
        storage_options: What Lance needs to reach the store.
        is_retained: Whether the ledger keeps a version. None: there is no ledger.
    """

    def __init__(
        self,
        uri: str,
        storage_options: dict[str, str] | None = None,
        is_retained: Callable[[int], bool] | None = None,
    ) -> None:
        super().__init__(uri, storage_options)
        self._is_retained = is_retained

    @property
    def schema(self) -> pa.Schema:
        """The columns at the moment when the table was opened."""
        return self._dataset.schema

    @property
    def owner(self) -> str | None:
        """The owner that created the table; None if another program created it."""
        metadata = self.schema.metadata or {}
        value = metadata.get(OWNER_PROPERTY)
        return None if value is None else value.decode()

    def columns(self, version: int) -> list[str]:
        """Names of the columns at a version."""
        return list(self.at(version).schema.names)

    def at(self, version: int) -> lance.LanceDataset:
        """The table at one version.

        Raises:
            VersionGoneError: The version existed once and was removed.
            TableDamagedError: The version's manifest cannot be read.
            TableUnavailableError: The version never existed, or the store does not answer.
        """
        with self._opening(version), translated(self.uri):
            try:
                return self._dataset.checkout_version(version)
            except (ValueError, OSError) as error:
                if "not found" in str(error).lower() and version < self._dataset.latest_version:
                    raise VersionGoneError(f"Version {version} of the LanceDB table at {self.uri} is gone") from error
                raise

    def mark_of(self, version: int) -> VersionMark | None:
        """The mark of a version; None if another program wrote the version.

        Raises:
            VersionGoneError, TableUnavailableError: As in `at`.
        """
        with translated(self.uri):
            transaction = self.at(version).read_transaction(version)
        return VersionMark.read(transaction.transaction_properties or {}) if transaction else None

    def readable_mark(self, version: int) -> VersionMark | None:
        """The mark of a version; None if another program wrote the version, or it cannot be opened."""
        try:
            return self.mark_of(version)
        except (VersionGoneError, TableDamagedError, TableUnavailableError):
            return None

    def saga_of(self, version: int) -> UUID | None:
        """The saga that wrote a version; None if another program wrote it."""
        mark = self.mark_of(version)
        return None if mark is None else mark.saga

    def fragments(self, version: int) -> list[FragmentState]:
        """All fragments at a version, by id."""
        with translated(self.uri):
            return [state_of(fragment) for fragment in self.at(version).get_fragments()]

    def states(self, version: int, numbers: Iterable[int]) -> dict[int, FragmentState]:
        """The state of each of these fragments that exists at the version, by id."""
        with translated(self.uri):
            dataset = self.at(version)
            present = dataset.fragment_ids()
            return {number: state_of(fragment_of(dataset, number)) for number in numbers if number in present}

    def segments(self, version: int, kind: IndexKind) -> list[Segment]:
        """The segments of an index at a version."""
        with translated(self.uri):
            return segments(self.at(version), kind.name)

    def fits(self, version: int, change: Indexing | ColumnChange | Edit) -> bool:
        """Whether files that were made on an older version are valid for this one too."""
        with translated(self.uri):
            return change.fits(self.at(version))

    def rows(
        self, version: int, columns: list[str], predicate: str | None = None, fragments: Iterable[int] | None = None
    ) -> pa.Table:
        """Rows at a version, optionally filtered and from some fragments only."""
        dataset = self.at(version)
        numbers = None if fragments is None else set(fragments)
        wanted = chosen(dataset, numbers)
        if wanted == []:
            return pa.schema([dataset.schema.field(name) for name in columns]).empty_table()
        with self._reading(version, numbers):
            return dataset.scanner(columns=columns, filter=predicate, fragments=wanted).to_table()

    def batches(
        self,
        version: int,
        columns: list[str],
        predicate: str | None = None,
        fragments: Iterable[int] | None = None,
        batch_size: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """All rows at a version, or those that match a filter, a batch at a time.

        Args:
            version: The version to read.
            columns: Names of the columns to read.
            predicate: SQL filter over the columns.
            fragments: Ids of the fragments to read; ids that the version does not have are ignored. None: all.
            batch_size: Maximum number of rows in a batch; few batches are then read ahead. None: Lance's default.
        """
        dataset = self.at(version)
        numbers = None if fragments is None else set(fragments)
        with self._reading(version, numbers):
            yield from dataset.scanner(
                columns=columns,
                filter=predicate,
                fragments=chosen(dataset, numbers),
                batch_size=batch_size,
                batch_readahead=batch_size and _READ_AHEAD_BATCHES,
                fragment_readahead=batch_size and _READ_AHEAD_BATCHES,
            ).to_batches()

    def count(self, version: int, predicate: str, fragments: Iterable[int] | None = None) -> int:
        """The number of rows that match a filter at a version; the arguments are those of `batches`."""
        dataset = self.at(version)
        numbers = None if fragments is None else set(fragments)
        with self._reading(version, numbers):
            return dataset.scanner(columns=[], filter=predicate, fragments=chosen(dataset, numbers)).count_rows()

    def filter_error(self, version: int, predicate: str) -> str | None:
        """Why a filter is not valid at a version; None if it is."""
        dataset = self.at(version)
        try:
            dataset.scanner(columns=[], filter=predicate, with_row_address=True).explain_plan()
        except ValueError as error:
            return str(error).partition(", /")[0]
        return None

    def tracked_files(self) -> set[str]:
        """Files that are part of an existing version, relative to the table's folder."""
        with translated(self.uri):
            return set(self.at(self.latest_version()).tracked_files().read_all()["path"].to_pylist())

    def files_of(self, version: int) -> set[str]:
        """Files that are part of a version, its manifest included, relative to the table's folder."""
        with translated(self.uri):
            tracked = self.at(version).tracked_files().read_all()
        return {row["path"] for row in tracked.select(["version", "path"]).to_pylist() if row["version"] == version}

    def read(self, version: int, reader: Callable[[lance.LanceDataset], R]) -> R:
        """Apply a function to the dataset at a version."""
        dataset = self.at(version)
        # After a failed search, looking for damage must not read the whole table.
        with self._reading(version, read=False):
            return reader(dataset)

    def damaged(
        self, version: int, numbers: Iterable[int] | None = None, *, read: bool = True
    ) -> list[DamagedFragment]:
        """The fragments that cannot be read at a version although the store answers.

        Args:
            version: The version to check.
            numbers: Ids of the fragments to check. None: all.
            read: Read all rows of the fragments. Otherwise only the sizes of their files are compared.

        Raises:
            TableUnavailableError: The store does not answer.
        """
        dataset = self.at(version)
        with translated(self.uri):
            files = LanceFileSession(self.uri, storage_options=self._storage_options)
            return damaged_fragments(dataset, files, numbers, read=read)

    def _is_removed(self, version: int) -> bool:
        return self._is_retained is not None and version != self.latest_version() and not self._is_retained(version)

    @contextmanager
    def _reading(self, version: int, numbers: Iterable[int] | None = None, *, read: bool = True) -> Generator[None]:
        """If the block fails because of damaged fragments, raise an error that names them.

        Args:
            version: The version that the block reads.
            numbers: Ids of the fragments that the block reads. None: all.
            read: See `damaged`.

        Raises:
            TableDamagedError: Some of these fragments cannot be read.
            VersionGoneError: The version was removed meanwhile.
        """
        try:
            with translated(self.uri):
                yield
        except TableUnavailableError as error:
            damaged = self.damaged(version, numbers, read=read) if may_be_damage(str(error.__cause__)) else []
            if damaged and self._is_removed(version):
                raise VersionGoneError(f"Version {version} of the LanceDB table at {self.uri} is gone") from error
            if damaged:
                raise TableDamagedError(
                    f"The LanceDB table at {self.uri} is damaged: {'; '.join(map(str, damaged[:_MAX_NAMED]))}",
                    frozenset(fragment.number for fragment in damaged),
                ) from error
            raise
