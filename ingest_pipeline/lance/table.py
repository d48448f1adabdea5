"""Writes a LanceDB table: creates it, makes and removes its versions, and drops it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from uuid import UUID

import lance
import pyarrow as pa
from lance.file import LanceFileSession, LanceFileWriter

from ingest_pipeline.errors import NotOurTableError, TableUnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.candidate import Candidate, Location, candidate
from ingest_pipeline.lance.changes import Change, NewColumns, StagedFragment, TableChange, owned
from ingest_pipeline.lance.files.flush import flush_data_file, flush_segment, flush_table
from ingest_pipeline.lance.files.table_files import translated
from ingest_pipeline.lance.indices import BuiltSegment, IndexKind, build
from ingest_pipeline.lance.table_reader import TableReader
from ingest_pipeline.lance.versions.manifests import NewVersion, commit_staged, find_staged, put_manifest, remove_staged
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.private_folder import local_path, make_private

REBUILD = "ingest-pipeline recover --rebuild-catalog"


class LanceTable(TableReader):
    """A LanceDB table, with every read and write of its versions; see `TableReader` for the reads."""

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
        with boundary(Boundary.FRAGMENT_WRITTEN):
            with translated(self.uri):
                writer = LanceFileWriter(
                    f"{self.uri}/data/{name}",
                    schema,
                    version=self._dataset.data_storage_version,
                    storage_options=self._storage_options,
                )
            # An error of what makes the batches says nothing about the store.
            for batch in batches:
                with translated(self.uri):
                    writer.write_batch(batch)
            with translated(self.uri):
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

    @contextmanager
    def candidate(self, base: int, change: Change, saga: UUID) -> Generator[Candidate]:
        """The table as a change would make it, for the time of a block. No version is made; see `candidate`.

        Args:
            base: The version that the change is made on.
            change: The change.
            saga: The saga that prepared it.
        """
        # Opened separately, so that nothing of the clone stays in the caches of this table.
        dataset = LanceTable(self.uri, self._storage_options).at(base)
        with candidate(dataset, change, saga, self._storage_options or {}) as made:
            yield made

    def location(self, version: int) -> Location:
        """Where another process can open a version."""
        return self.uri, version, self._storage_options or {}

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

    def build_segment(self, version: int, kind: IndexKind, numbers: Sequence[int], saga: UUID) -> BuiltSegment:
        """Build an index segment over some fragments. It is in no version until a commit adds it."""
        with self._reading(version, numbers):
            built = build(self.at(version), kind, numbers, saga, self._storage_options)
            flush_segment(self.uri, built.index.uuid)
            return built

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
