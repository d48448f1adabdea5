"""A LanceDB table as a sequence of versions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import lance
import pyarrow as pa
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
from ingest_pipeline.lance.checks.damage import DamagedFragment, damaged_fragments, may_be_damage
from ingest_pipeline.lance.column_files import ColumnChange
from ingest_pipeline.lance.files import TableFiles, translated
from ingest_pipeline.lance.flush import flush_data_file, flush_segment, flush_table
from ingest_pipeline.lance.indices import BuiltSegment, Indexing, IndexKind, Segment, build, segments
from ingest_pipeline.lance.versions.manifests import NewVersion, commit_staged, find_staged, put_manifest, remove_staged
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.private_folder import local_path, make_private

REBUILD = "ingest-pipeline recover --rebuild-catalog"
_READ_AHEAD_BATCHES = 2
_MAX_NAMED = 5
R = TypeVar("R")


class LanceTable(TableFiles):
    """A LanceDB table, with every read and write of its versions; see `TableFiles` for its folder."""

    def create(self, schema: pa.Schema, *, owner: str, mark: VersionMark) -> NewVersion:
        """Create the empty table, or accept an existing one that this owner created and never wrote to.

        Args:
            schema: Columns.
            owner: The corpus that may write versions, recorded in the table.
            mark: The mark of the saga that creates it.

        Returns:
            The table's version. That of a new table is visible at once, and empty.

        Raises:
            NotOurTableError: A table exists there that another owner created, or that has rows.
            UnsafeStoreError: The object store does not refuse to overwrite a version.
        """
        if self.exists():
            self._check_half_created(owner, mark)
            # The table may have been created with other settings, such as another width of the vectors.
            change = Change() if self.schema.equals(schema) else NewColumns(schema, owner)
            made = self.stage_version(self.latest_version(), change, mark)
            self.flush()  # its creator died, perhaps before it flushed the table
            return made
        if (path := local_path(self.uri)) is not None:
            with translated(self.uri):
                make_private(path.parent)
        else:
            # obstore is imported for object stores only.
            from ingest_pipeline.lance.versions.store_check import check_store  # noqa: PLC0415

            check_store(self.uri)
        with translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            dataset = lance.write_dataset(
                owned(schema, owner).empty_table(),
                self.uri,
                mode="create",
                storage_options=self._storage_options,
                transaction_properties=mark.properties(),
            )
        self.flush()
        return NewVersion(dataset.version, None, dataset)

    def flush(self) -> None:
        """Flush all files of the table, which another program may have written or copied."""
        with translated(self.uri):
            flush_table(self.uri)

    def _check_half_created(self, owner: str, mark: VersionMark) -> None:
        dataset = self.at(self.latest_version())
        before = self.mark_of(dataset.version)
        is_half_created = before is not None and before.database == mark.database and dataset.count_rows() == 0
        if self.owner != owner or not is_half_created:
            remedy = f"{NotOurTableError.remedy} If the database of its corpus was lost, `{REBUILD}` reads the table."
            raise NotOurTableError(f"A LanceDB table exists at {self.uri} that this corpus did not create", remedy)

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

    def stage(self, name: str, rows: pa.Table) -> StagedFragment:
        """Write all rows at once into a data file, see `stage_batches`."""
        return self.stage_batches(name, rows.to_batches(), rows.schema)

    def stage_batches(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> StagedFragment:
        """Write rows into a data file of a chosen name. The file is in no version until a commit adds it.

        Args:
            name: File name. A sweep reads the file's saga from it, so no record is needed before the write.
            batches: The rows.
            schema: Their columns.
        """
        with translated(self.uri), boundary(Boundary.FRAGMENT_WRITTEN):
            writer = LanceFileWriter(
                f"{self.uri}/data/{name}",
                schema,
                version=self._dataset.data_storage_version,
                storage_options=self._storage_options,
            )
            for batch in batches:
                writer.write_batch(batch)
            count = writer.close()
        with translated(self.uri):
            flush_data_file(self.uri, name)
        return StagedFragment(name, count or 0)

    def stage_version(self, base: int, change: TableChange, mark: VersionMark) -> NewVersion:
        """Make a version of a change, in one Lance transaction that carries the mark. No reader sees it yet.

        Raises:
            CommitRefusedError: Another program committed a conflicting change in between.
            TableDamagedError: Rows to be removed cannot be read.
            TableUnavailableError: The store failed.
        """
        rows, dataset = change.removed if isinstance(change, Change) else None, self.at(base)
        with self._reading(base, None if rows is None else rows.fragments):
            operation = change.operation(dataset)
        with translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            return commit_staged(self.uri, self._storage_options, dataset, operation, mark)

    def stage_restore(self, version: int, mark: VersionMark) -> NewVersion:
        """Make a version with the content of an older one; see `stage_version`."""
        with translated(self.uri), boundary(Boundary.RESTORED):
            latest = self.at(self.latest_version())
            operation = lance.LanceOperation.Restore(version=version)
            return commit_staged(self.uri, self._storage_options, latest, operation, mark)

    def install(self, version: int, manifest: str | None, saga: UUID, *, replace: bool = False) -> bool:
        """Make a staged version visible to every reader. May be repeated, by any process.

        Args:
            version: The version.
            manifest: Name of its staged manifest. None: the version is visible already.
            saga: The saga that made the version.
            replace: Replace the version of the same number that another writer made.

        Returns:
            False if another writer made a version of the same number. That version was not touched.
        """
        if manifest is None or manifest == self._installed:
            return True
        options = self._storage_options or {}
        with translated(self.uri):
            content = find_staged(self.uri, options, manifest)
        if content is None:
            self._installed = manifest
            return True
        with boundary(Boundary.MANIFEST_INSTALLED):
            with translated(self.uri):
                done = put_manifest(self.uri, options, version, manifest, content, replace=replace)
            if replace:
                self.__dict__.pop("_dataset", None)
            if not done and not self.has_version(version):
                raise TableUnavailableError(
                    f"The store of the LanceDB table at {self.uri} refuses the manifest of version {version} as if it "
                    "had one already"
                )
            if not done and self.saga_of(version) != saga:
                return False
            with translated(self.uri):
                remove_staged(self.uri, options, manifest)
        self._installed = manifest
        return True

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

    def build_segment(self, version: int, kind: IndexKind, numbers: Sequence[int], saga: UUID) -> BuiltSegment:
        """Build an index segment over some fragments. It is in no version until a commit adds it."""
        with self._reading(version, numbers):
            built = build(self.at(version), kind, numbers, saga, self._storage_options)
            flush_segment(self.uri, built.index.uuid)
            return built

    def fits(self, version: int, change: Indexing | ColumnChange) -> bool:
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

    def drop(self, *, owner: str) -> None:
        """Delete the table with all its files. A missing or partly deleted table is no error.

        Args:
            owner: The owner that created it.

        Raises:
            NotOurTableError: Another owner created the table that exists now. The table was not touched.
        """
        if self.exists() and LanceTable(self.uri, self._storage_options).owner != owner:
            raise NotOurTableError(
                f"The LanceDB table at {self.uri} was created by another program, and was not deleted"
            )
        with translated(self.uri), boundary(Boundary.TABLE_DROPPED):
            try:
                lance.LanceDataset.drop(self.uri, storage_options=self._storage_options, ignore_not_found=True)
            except ValueError:
                # A drop deletes the manifests first, and without manifests Lance does not recognise the table.
                files = LanceFileSession(self.uri, storage_options=self._storage_options)
                for name in files.list():
                    files.delete_file(name)

    def remove_versions(self, versions: list[int]) -> None:
        """Delete these versions and the files that no other version contains."""
        with translated(self.uri), boundary(Boundary.VERSIONS_REMOVED):
            self.at(self.latest_version()).cleanup_old_versions(versions=versions, error_if_tagged_old_versions=False)

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

    @contextmanager
    def _reading(self, version: int, numbers: Iterable[int] | None = None, *, read: bool = True) -> Generator[None]:
        """If the block fails because of damaged fragments, raise an error that names them.

        Args:
            version: The version that the block reads.
            numbers: Ids of the fragments that the block reads. None: all.
            read: See `damaged`.

        Raises:
            TableDamagedError: Some of these fragments cannot be read.
        """
        try:
            with translated(self.uri):
                yield
        except TableUnavailableError as error:
            damaged = self.damaged(version, numbers, read=read) if may_be_damage(str(error.__cause__)) else []
            if damaged:
                raise TableDamagedError(
                    f"The LanceDB table at {self.uri} is damaged: {'; '.join(map(str, damaged[:_MAX_NAMED]))}",
                    frozenset(fragment.number for fragment in damaged),
                ) from error
            raise
