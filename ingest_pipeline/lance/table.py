"""A LanceDB table as a sequence of versions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.file import LanceFileSession, LanceFileWriter

from ingest_pipeline.errors import NotOurTableError, TableDamagedError, TableUnavailableError, VersionGoneError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import (
    OWNER_PROPERTY,
    Change,
    FragmentState,
    NewColumns,
    StagedFragment,
    TableChange,
    chosen,
    fragment_of,
    owned,
    state_of,
)
from ingest_pipeline.lance.damage import DamagedFragment, damaged_fragments, may_be_damage
from ingest_pipeline.lance.files import TableFiles, translated
from ingest_pipeline.lance.flush import flush_commit, flush_data_file, flush_segment, flush_table
from ingest_pipeline.lance.indices import BuiltSegment, Indexing, IndexKind, Segment, build, segments
from ingest_pipeline.lance.version_mark import VersionMark
from ingest_pipeline.private_folder import local_path, make_private

REBUILD = "ingest-pipeline recover --rebuild-catalog"
_COMMIT_TIMEOUT = timedelta(seconds=60)
_READ_AHEAD = 2
_NAMED = 5
R = TypeVar("R")


class CommitRefusedError(TableUnavailableError):
    """Lance refused the commit, because another one touched the same fragments first."""


class LanceTable(TableFiles):
    """The dataset at one uri; see `TableFiles`."""

    def create(self, schema: pa.Schema, *, owner: str, mark: VersionMark) -> int:
        """Create the empty table, or find it if this owner created it before and wrote nothing yet.

        Args:
            schema: Columns.
            owner: Who may write versions of it, recorded in the table.
            mark: Of the saga that creates it.

        Returns:
            The version.

        Raises:
            NotOurTableError: A table lies there that this owner did not create, or with rows.
        """
        if self.exists():
            self._check_half_created(owner, mark)
            # It may have been created with other settings, of another width for one.
            change = Change() if self.schema.equals(schema) else NewColumns(schema, owner)
            return self.commit(self.latest_version(), change, mark)
        if (place := local_path(self.uri)) is not None:
            with translated(self.uri):
                make_private(place.parent)
        with translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            dataset = lance.write_dataset(
                owned(schema, owner).empty_table(),
                self.uri,
                mode="create",
                storage_options=self._storage_options,
                transaction_properties=mark.properties(),
            )
        with translated(self.uri):
            flush_table(self.uri)
        return dataset.version

    def _check_half_created(self, owner: str, mark: VersionMark) -> None:
        dataset = self.at(self.latest_version())
        before = self.mark_of(dataset.version)
        is_half_created = before is not None and before.database == mark.database and dataset.count_rows() == 0
        if self.owner != owner or not is_half_created:
            remedy = f"{NotOurTableError.remedy} If the database of its corpus was lost, `{REBUILD}` reads the table."
            raise NotOurTableError(f"A LanceDB table exists at {self.uri} that this corpus did not create", remedy)

    @property
    def schema(self) -> pa.Schema:
        """Columns, as they were when the table was opened."""
        return self._dataset.schema

    @property
    def owner(self) -> str | None:
        """Who created the table, None if it was not this package."""
        metadata = self.schema.metadata or {}
        value = metadata.get(OWNER_PROPERTY)
        return None if value is None else value.decode()

    def columns(self, version: int) -> list[str]:
        """Names of the columns at a version."""
        return list(self.at(version).schema.names)

    def at(self, version: int) -> lance.LanceDataset:
        """The table as of one version.

        Raises:
            VersionGoneError: There was such a version, and it is gone.
            TableDamagedError: Its manifest cannot be read.
            TableUnavailableError: There was none, or the store does not answer.
        """
        with self._opening(version), translated(self.uri):
            try:
                return self._dataset.checkout_version(version)
            except (ValueError, OSError) as error:
                if "not found" in str(error).lower() and version < self._dataset.latest_version:
                    raise VersionGoneError(f"Version {version} of the LanceDB table at {self.uri} is gone") from error
                raise

    def mark_of(self, version: int) -> VersionMark | None:
        """What a version says about its maker, None if something else than this package made it.

        Raises:
            VersionGoneError, TableUnavailableError: As in `at`.
        """
        with translated(self.uri):
            transaction = self.at(version).read_transaction(version)
        return VersionMark.read(transaction.transaction_properties or {}) if transaction else None

    def readable_mark(self, version: int) -> VersionMark | None:
        """The same, None also if the version cannot be opened."""
        try:
            return self.mark_of(version)
        except (VersionGoneError, TableDamagedError, TableUnavailableError):
            return None

    def saga_of(self, version: int) -> UUID | None:
        """The saga that made a version, None if something else made it."""
        mark = self.mark_of(version)
        return None if mark is None else mark.saga

    def stage(self, name: str, rows: pa.Table) -> StagedFragment:
        """As `stage_batches`, with all rows at once."""
        return self.stage_batches(name, rows.to_batches())

    def stage_batches(self, name: str, batches: Iterable[pa.RecordBatch]) -> StagedFragment:
        """Write rows into a data file of a chosen name. No version holds it until a commit adds it.

        Args:
            name: File name; choosing it lets a sweep know whose the file is without having been told.
            batches: Columns as in the table.
        """
        with translated(self.uri), boundary(Boundary.FRAGMENT_WRITTEN):
            writer = LanceFileWriter(
                f"{self.uri}/data/{name}",
                self._dataset.schema,
                version=self._dataset.data_storage_version,
                storage_options=self._storage_options,
            )
            for batch in batches:
                writer.write_batch(batch)
            count = writer.close()
        with translated(self.uri):
            flush_data_file(self.uri, name)
        return StagedFragment(name, count or 0)

    def commit(self, base: int, change: TableChange, mark: VersionMark) -> int:
        """Make one version out of a change, as one Lance transaction that carries the mark.

        Returns:
            The version made. It is ``base + 1`` unless something outside committed in between.

        Raises:
            CommitRefusedError: A version of ours came between.
            TableDamagedError: Rows that go cannot be read. There is no version.
            TableUnavailableError: The store failed; the version may exist all the same.
        """
        rows = change.removed if isinstance(change, Change) else None
        with self._reading(base, None if rows is None else rows.fragments):
            operation = change.operation(self.at(base))
        with translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            return self._commit(base, operation, mark)

    def restore(self, version: int, mark: VersionMark) -> int:
        """Make the content of an older version the latest, as a new version that carries the mark.

        Lance then refuses every commit that was planned on what lay between: a restore is a fence too.
        """
        with translated(self.uri), boundary(Boundary.RESTORED):
            latest = self.latest_version()
            return self._commit(latest, lance.LanceOperation.Restore(version=version), mark)

    def fragments_named(self, version: int, names: Iterable[str]) -> dict[str, int]:
        """Fragment ids by data file name, for those names that the version holds."""
        wanted = set(names)
        found: dict[str, int] = {}
        with translated(self.uri):
            dataset = self.at(version)
            # Lance numbers fragments upwards, so the ones just added come first.
            for number in sorted(dataset.fragment_ids(), reverse=True):
                if len(found) == len(wanted):
                    break
                name = fragment_of(dataset, number).metadata.files[0].path
                if name in wanted:
                    found[name] = number
        return found

    def fragments(self, version: int) -> list[FragmentState]:
        """All fragments at a version, by id."""
        with translated(self.uri):
            return [state_of(fragment) for fragment in self.at(version).get_fragments()]

    def states(self, version: int, numbers: Iterable[int]) -> dict[int, FragmentState]:
        """Those of the fragments that the version has."""
        with translated(self.uri):
            dataset = self.at(version)
            present = dataset.fragment_ids()
            return {number: state_of(fragment_of(dataset, number)) for number in numbers if number in present}

    def segments(self, version: int, kind: IndexKind) -> list[Segment]:
        """The parts of an index at a version."""
        with translated(self.uri):
            return segments(self.at(version), kind.name)

    def build_segment(self, version: int, kind: IndexKind, numbers: Sequence[int], saga: UUID) -> BuiltSegment:
        """Build a part of an index over some fragments. No version holds it until a commit adds it."""
        with self._reading(version, numbers):
            built = build(self.at(version), kind, numbers, saga)
            flush_segment(self.uri, built.index.uuid)
            return built

    def fits(self, version: int, change: Indexing) -> bool:
        """Whether a part of an index that was built on an older version is right for this one too."""
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
        """All rows at a version, or those that a filter takes, a batch at a time.

        Args:
            version: Which one.
            columns: Wanted.
            predicate: Filter.
            fragments: Ids of those to look in; one that the version does not have is passed over. None: all.
            batch_size: Rows in a batch at most, of which few are then read ahead. None: as Lance likes.
        """
        dataset = self.at(version)
        numbers = None if fragments is None else set(fragments)
        with self._reading(version, numbers):
            yield from dataset.scanner(
                columns=columns,
                filter=predicate,
                fragments=chosen(dataset, numbers),
                batch_size=batch_size,
                batch_readahead=batch_size and _READ_AHEAD,
                fragment_readahead=batch_size and _READ_AHEAD,
            ).to_batches()

    def count(self, version: int, predicate: str, fragments: Iterable[int] | None = None) -> int:
        """How many rows a filter takes at a version, looking as `batches` does."""
        dataset = self.at(version)
        numbers = None if fragments is None else set(fragments)
        with self._reading(version, numbers):
            return dataset.scanner(columns=[], filter=predicate, fragments=chosen(dataset, numbers)).count_rows()

    def objection_to(self, version: int, predicate: str) -> str | None:
        """Why a filter cannot be used, None if it can."""
        dataset = self.at(version)
        try:
            dataset.scanner(columns=[], filter=predicate, with_row_address=True).explain_plan()
        except ValueError as error:
            return str(error).partition(", /")[0]
        return None

    def tracked_files(self) -> set[str]:
        """Files that some existing version holds, relative to the table's folder."""
        with translated(self.uri):
            return set(self.at(self.latest_version()).tracked_files().read_all()["path"].to_pylist())

    def files_of(self, version: int) -> set[str]:
        """Files that a version holds, its manifest included, relative to the table's folder."""
        with translated(self.uri):
            held = self.at(version).tracked_files().read_all()
        return {row["path"] for row in held.select(["version", "path"]).to_pylist() if row["version"] == version}

    def drop(self, *, owner: str) -> None:
        """Delete the table with all its files. One that is gone, or that a death left half dropped, is no fault.

        Args:
            owner: Who made it.

        Raises:
            NotOurTableError: Somebody else made the table that is there now. It was not touched.
        """
        if self.exists() and LanceTable(self.uri, self._storage_options).owner != owner:
            raise NotOurTableError(f"The LanceDB table at {self.uri} was made by something else, and was not deleted")
        with translated(self.uri), boundary(Boundary.TABLE_DROPPED):
            try:
                lance.LanceDataset.drop(self.uri, storage_options=self._storage_options, ignore_not_found=True)
            except ValueError:
                # Its manifests went first: Lance does not take what is left for a table.
                files = LanceFileSession(self.uri, storage_options=self._storage_options)
                for name in files.list():
                    files.delete_file(name)

    def remove_versions(self, versions: list[int]) -> None:
        """Delete these versions and the files that only they hold."""
        with translated(self.uri), boundary(Boundary.VERSIONS_REMOVED):
            self.at(self.latest_version()).cleanup_old_versions(versions=versions, error_if_tagged_old_versions=False)

    def read(self, version: int, reader: Callable[[lance.LanceDataset], R]) -> R:
        """What a function of the dataset finds at a version."""
        dataset = self.at(version)
        # A search must not read the whole table whenever it fails.
        with self._reading(version, read=False):
            return reader(dataset)

    def damaged(
        self, version: int, numbers: Iterable[int] | None = None, *, read: bool = True
    ) -> list[DamagedFragment]:
        """Those of some fragments, or of all, that cannot be read at a version although the store answers.

        Args:
            version: Which one.
            numbers: Ids of the fragments to look at. None: all.
            read: Read all their rows. Else only the sizes of their files are compared.

        Raises:
            TableUnavailableError: It does not answer.
        """
        dataset = self.at(version)
        with translated(self.uri):
            files = LanceFileSession(self.uri, storage_options=self._storage_options)
            return damaged_fragments(dataset, files, numbers, read=read)

    @contextmanager
    def _reading(self, version: int, numbers: Iterable[int] | None = None, *, read: bool = True) -> Generator[None]:
        """Name the fragments that cannot be read, if that is why the block failed.

        Args:
            version: That the block reads.
            numbers: Ids of the fragments that it reads. None: all.
            read: As of `damaged`.

        Raises:
            TableDamagedError: Some of these cannot be read.
        """
        try:
            with translated(self.uri):
                yield
        except TableUnavailableError as error:
            damaged = self.damaged(version, numbers, read=read) if may_be_damage(str(error.__cause__)) else []
            if damaged:
                raise TableDamagedError(
                    f"The LanceDB table at {self.uri} is damaged: {'; '.join(map(str, damaged[:_NAMED]))}",
                    frozenset(fragment.number for fragment in damaged),
                ) from error
            raise

    def _commit(self, base: int, operation: lance.LanceOperation.BaseOperation, mark: VersionMark) -> int:
        transaction = lance.Transaction(
            read_version=base,
            operation=operation,
            uuid=str(uuid.uuid4()),
            transaction_properties=mark.properties(),
        )
        try:
            committed = lance.LanceDataset.commit(
                self._dataset,
                transaction,
                storage_options=self._storage_options,
                max_retries=0,
                commit_timeout=_COMMIT_TIMEOUT,
            )
        except CommitConflictError as error:
            raise CommitRefusedError(f"A commit on version {base} of {self.uri} was refused") from error
        flush_commit(self.uri, committed.version, transaction)
        return committed.version
