"""A LanceDB table as a sequence of versions."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TypeVar
from uuid import UUID

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.file import LanceFileSession, LanceFileWriter

from ingest_pipeline.errors import NotOurTableError, TableDamagedError, TableUnavailableError, VersionGoneError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance_changes import (
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
from ingest_pipeline.lance_damage import DamagedFragment, damaged_fragments, fetch, is_panic, may_be_damage
from ingest_pipeline.lance_errors import error_of
from ingest_pipeline.lance_flush import flush_commit, flush_data_file, flush_segment, flush_table, folder_of
from ingest_pipeline.lance_indices import BuiltSegment, Indexing, IndexKind, Segment, build, segments
from ingest_pipeline.private_folder import local_path, make_private
from ingest_pipeline.version_mark import VersionMark

REBUILD = "ingest-pipeline recover --rebuild-catalog"
_COMMIT_TIMEOUT = timedelta(seconds=60)
_READ_AHEAD = 2
_NAMED = 5
# A manifest's name counts down, so that a listing begins with the latest.
_LAST_VERSION = 2**64 - 1
_MANIFEST = re.compile(r"_versions/(\d{20})\.manifest$")
R = TypeVar("R")


class CommitRefusedError(TableUnavailableError):
    """Lance refused the commit, because another one touched the same fragments first."""


class LanceTable:
    """The dataset at one uri.

    Args:
        uri: Folder of the dataset, ``.../<table>.lance``; a local path or an object-store url.
        storage_options: What Lance needs to reach the store.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self._storage_options = storage_options

    def exists(self) -> bool:
        """Whether a dataset lies at the uri."""
        with _translated(self.uri):
            try:
                lance.dataset(self.uri, storage_options=self._storage_options)
            except (ValueError, FileNotFoundError) as error:
                if "not found" in str(error):
                    return False
                raise
        return True

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
            with _translated(self.uri):
                make_private(place.parent)
        with _translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            dataset = lance.write_dataset(
                owned(schema, owner).empty_table(),
                self.uri,
                mode="create",
                storage_options=self._storage_options,
                transaction_properties=mark.properties(),
            )
        with _translated(self.uri):
            flush_table(self.uri)
        return dataset.version

    def _check_half_created(self, owner: str, mark: VersionMark) -> None:
        dataset = self.at(self.latest_version())
        before = self.mark_of(dataset.version)
        is_half_created = before is not None and before.database == mark.database and dataset.count_rows() == 0
        if self.owner != owner or not is_half_created:
            remedy = f"{NotOurTableError.remedy} If the database of its corpus was lost, `{REBUILD}` reads the table."
            raise NotOurTableError(f"A LanceDB table exists at {self.uri} that this corpus did not create", remedy)

    @cached_property
    def _dataset(self) -> lance.LanceDataset:
        with self._opening(None), _translated(self.uri):
            return lance.dataset(self.uri, storage_options=self._storage_options)

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

    def latest_version(self) -> int:
        """The highest version that exists, published or not."""
        with _translated(self.uri):
            return self._dataset.latest_version

    def at(self, version: int) -> lance.LanceDataset:
        """The table as of one version.

        Raises:
            VersionGoneError: There was such a version, and it is gone.
            TableDamagedError: Its manifest cannot be read.
            TableUnavailableError: There was none, or the store does not answer.
        """
        with self._opening(version), _translated(self.uri):
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
        with _translated(self.uri):
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
        with _translated(self.uri), boundary(Boundary.FRAGMENT_WRITTEN):
            writer = LanceFileWriter(
                f"{self.uri}/data/{name}",
                self._dataset.schema,
                version=self._dataset.data_storage_version,
                storage_options=self._storage_options,
            )
            for batch in batches:
                writer.write_batch(batch)
            count = writer.close()
        with _translated(self.uri):
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
        with _translated(self.uri), boundary(Boundary.LANCE_COMMIT):
            return self._commit(base, operation, mark)

    def restore(self, version: int, mark: VersionMark) -> int:
        """Make the content of an older version the latest, as a new version that carries the mark.

        Lance then refuses every commit that was planned on what lay between: a restore is a fence too.
        """
        with _translated(self.uri), boundary(Boundary.RESTORED):
            latest = self.latest_version()
            return self._commit(latest, lance.LanceOperation.Restore(version=version), mark)

    def fragments_named(self, version: int, names: Iterable[str]) -> dict[str, int]:
        """Fragment ids by data file name, for those names that the version holds."""
        wanted = set(names)
        found: dict[str, int] = {}
        with _translated(self.uri):
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
        with _translated(self.uri):
            return [state_of(fragment) for fragment in self.at(version).get_fragments()]

    def states(self, version: int, numbers: Iterable[int]) -> dict[int, FragmentState]:
        """Those of the fragments that the version has."""
        with _translated(self.uri):
            dataset = self.at(version)
            present = dataset.fragment_ids()
            return {number: state_of(fragment_of(dataset, number)) for number in numbers if number in present}

    def segments(self, version: int, kind: IndexKind) -> list[Segment]:
        """The parts of an index at a version."""
        with _translated(self.uri):
            return segments(self.at(version), kind.name)

    def build_segment(self, version: int, kind: IndexKind, numbers: Sequence[int], saga: UUID) -> BuiltSegment:
        """Build a part of an index over some fragments. No version holds it until a commit adds it."""
        with self._reading(version, numbers):
            built = build(self.at(version), kind, numbers, saga)
            flush_segment(self.uri, built.index.uuid)
            return built

    def fits(self, version: int, change: Indexing) -> bool:
        """Whether a part of an index that was built on an older version is right for this one too."""
        with _translated(self.uri):
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

    def has_version(self, version: int) -> bool:
        """Whether a version still exists."""
        return version in self.versions()

    def versions(self) -> list[int]:
        """Every version that still exists, ascending, by the names of their manifests."""
        with _translated(self.uri):
            names = LanceFileSession(self.uri, storage_options=self._storage_options).list("_versions")
        return sorted(_LAST_VERSION - int(found[1]) for name in names if (found := _MANIFEST.search(name)))

    def tagged_versions(self) -> list[int]:
        """Versions that somebody gave a tag, which keeps them."""
        with _translated(self.uri):
            return [tag["version"] for tag in self._dataset.tags.list().values()]

    def tracked_files(self) -> set[str]:
        """Files that some existing version holds, relative to the table's folder."""
        with _translated(self.uri):
            return set(self.at(self.latest_version()).tracked_files().read_all()["path"].to_pylist())

    def files_of(self, version: int) -> set[str]:
        """Files that a version holds, its manifest included, relative to the table's folder."""
        with _translated(self.uri):
            held = self.at(version).tracked_files().read_all()
        return {row["path"] for row in held.select(["version", "path"]).to_pylist() if row["version"] == version}

    def remove_manifest(self, version: int) -> None:
        """Take away a version whose manifest cannot be read. Its other files are left to the sweep."""
        self.remove_file(f"_versions/{_LAST_VERSION - version:020d}.manifest")
        self.__dict__.pop("_dataset", None)

    def file_sizes(self) -> dict[str, int]:
        """Bytes of each file in the table's folder."""
        with _translated(self.uri):
            files = self._dataset.all_files().read_all()
        return dict(zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True))

    def written_at(self) -> dict[str, datetime]:
        """When each file in the table's folder was written, by the store's clock."""
        with _translated(self.uri):
            files = self._dataset.all_files().read_all()
        return dict(zip(files["path"].to_pylist(), files["last_modified"].to_pylist(), strict=True))

    def all_files(self) -> set[str]:
        """Files that lie in the table's folder."""
        return set(self.file_sizes())

    def remove_file(self, name: str) -> None:
        """Delete one file by its name relative to the table's folder. One that is gone is no fault."""
        files = LanceFileSession(self.uri, storage_options=self._storage_options)
        with _translated(self.uri), boundary(Boundary.FILE_REMOVED):
            if files.contains(name):
                files.delete_file(name)

    def drop(self, *, owner: str) -> None:
        """Delete the table with all its files. One that is gone, or that a death left half dropped, is no fault.

        Args:
            owner: Who made it.

        Raises:
            NotOurTableError: Somebody else made the table that is there now. It was not touched.
        """
        if self.exists() and LanceTable(self.uri, self._storage_options).owner != owner:
            raise NotOurTableError(f"The LanceDB table at {self.uri} was made by something else, and was not deleted")
        with _translated(self.uri), boundary(Boundary.TABLE_DROPPED):
            try:
                lance.LanceDataset.drop(self.uri, storage_options=self._storage_options, ignore_not_found=True)
            except ValueError:
                # Its manifests went first: Lance does not take what is left for a table.
                files = LanceFileSession(self.uri, storage_options=self._storage_options)
                for name in files.list():
                    files.delete_file(name)

    def remove_empty_versions(self, above: int) -> list[int]:
        """Remove what a power cut left of commits above a version: manifests of no bytes, or of zeros.

        Lance writes a manifest under another name first, so no living writer has one that looks so.
        """
        folder, removed = folder_of(self.uri), list[int]()
        for version in self.versions() if folder is not None else ():
            name = _manifest_name(version)
            if folder is not None and version > above and not (folder / name).read_bytes().strip(b"\0"):
                self.remove_file(name)
                removed.append(version)
        return removed

    def remove_versions(self, versions: list[int]) -> None:
        """Delete these versions and the files that only they hold."""
        with _translated(self.uri), boundary(Boundary.VERSIONS_REMOVED):
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
        with _translated(self.uri):
            files = LanceFileSession(self.uri, storage_options=self._storage_options)
            return damaged_fragments(dataset, files, numbers, read=read)

    @contextmanager
    def _opening(self, version: int | None) -> Generator[None]:
        """Say that a manifest is damaged, if that is why the block failed; version None: that of the latest."""
        try:
            yield
        except TableUnavailableError as error:
            there = self.versions() if may_be_damage(str(error.__cause__)) else []
            number = max(there, default=0) if version is None else version
            files = LanceFileSession(self.uri, storage_options=self._storage_options)
            if number in there and self._cannot_be_opened(number, files):
                raise TableDamagedError(
                    f"The manifest of version {number} of the LanceDB table at {self.uri} cannot be read",
                    remedy="`ingest-pipeline recover` removes it if a power cut left it empty, above head. Else "
                    "`ingest-pipeline recover --rebuild-catalog` goes on with the newest version that can be read.",
                ) from error
            raise

    def _cannot_be_opened(self, version: int, files: LanceFileSession) -> bool:
        with _translated(self.uri):
            fetch(files, _manifest_name(version))
        try:
            with _translated(self.uri):
                lance.dataset(self.uri, version, storage_options=self._storage_options)
        except TableUnavailableError:
            return True
        return False

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
            with _translated(self.uri):
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


def _manifest_name(version: int) -> str:
    return f"_versions/{_LAST_VERSION - version:020d}.manifest"


@contextmanager
def _translated(uri: str) -> Generator[None]:
    """Raise this package's error in place of what Lance raises, which has no classes of its own for most faults."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, OSError | ValueError | RuntimeError) and not is_panic(error):
            raise
        raise error_of(uri, error) from error
