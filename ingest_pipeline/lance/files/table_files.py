"""The folder of a LanceDB table: manifests and files by name, and checks whether manifests can be opened."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property

import lance
from lance.file import LanceFileSession

from ingest_pipeline.errors import TableDamagedError, TableUnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.checks.damage import fetch, is_panic, may_be_damage
from ingest_pipeline.lance.errors import error_of
from ingest_pipeline.lance.files.flush import folder_of
from ingest_pipeline.lance.files.spool import Spool
from ingest_pipeline.lance.versions.manifests import LAST_VERSION, manifest_name

_MANIFEST = re.compile(r"_versions/(\d{20})\.manifest$")


class TableFiles:
    """The folder of a table at one URI.

    Args:
        uri: Folder of the dataset, ``.../<table>.lance``; a local path or an object-store url.
        storage_options: What Lance needs to reach the store.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.uri = uri
        self._storage_options = storage_options
        self._installed = ""
        """The last staged manifest that is known to be installed."""

    @property
    def spool(self) -> Spool:
        """The files with vectors that are recorded and not published."""
        return Spool(self.uri, self._storage_options)

    def exists(self) -> bool:
        """Whether a dataset exists at the URI."""
        with translated(self.uri):
            try:
                lance.dataset(self.uri, storage_options=self._storage_options)
            except (ValueError, FileNotFoundError) as error:
                if "not found" in str(error):
                    return False
                raise
        return True

    def latest_version(self) -> int:
        """The highest version that exists, published or not."""
        with translated(self.uri):
            return self._dataset.latest_version

    def tagged_versions(self) -> list[int]:
        """Versions that have a tag, which retention keeps."""
        with translated(self.uri):
            return [tag["version"] for tag in self._dataset.tags.list().values()]

    @cached_property
    def _dataset(self) -> lance.LanceDataset:
        with self._opening(None), translated(self.uri):
            return lance.dataset(self.uri, storage_options=self._storage_options)

    def has_version(self, version: int) -> bool:
        """Whether a version still exists."""
        return version in self.versions()

    def versions(self) -> list[int]:
        """Every version that still exists, ascending, from the names of the manifests."""
        with translated(self.uri):
            names = LanceFileSession(self.uri, storage_options=self._storage_options).list("_versions")
        return sorted(LAST_VERSION - int(found[1]) for name in names if (found := _MANIFEST.search(name)))

    def remove_manifest(self, version: int) -> None:
        """Remove a version whose manifest cannot be read. The sweep removes its other files."""
        self.remove_file(manifest_name(version))
        self.__dict__.pop("_dataset", None)

    def file_sizes(self) -> dict[str, int]:
        """The size in bytes of each file in the table's folder."""
        with translated(self.uri):
            files = self._dataset.all_files().read_all()
        return dict(zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True))

    def written_at(self) -> dict[str, datetime]:
        """The time at which each file in the table's folder was written, by the store's clock."""
        with translated(self.uri):
            files = self._dataset.all_files().read_all()
        return dict(zip(files["path"].to_pylist(), files["last_modified"].to_pylist(), strict=True))

    def all_files(self) -> set[str]:
        """Names of all files in the table's folder."""
        return set(self.file_sizes())

    def remove_file(self, name: str) -> None:
        """Delete one file by its name relative to the table's folder. A missing file is no error."""
        files = LanceFileSession(self.uri, storage_options=self._storage_options)
        with translated(self.uri), boundary(Boundary.FILE_REMOVED):
            if files.contains(name):
                files.delete_file(name)

    def remove_empty_versions(self, above: int) -> list[int]:
        """Remove the remains of commits above a version after a power cut: manifests that are empty or all zeros.

        Lance writes a manifest under another name first, so no living writer has such a manifest.
        """
        folder, removed = folder_of(self.uri), list[int]()
        for version in self.versions() if folder is not None else ():
            name = manifest_name(version)
            if folder is not None and version > above and not (folder / name).read_bytes().strip(b"\0"):
                self.remove_file(name)
                removed.append(version)
        return removed

    @contextmanager
    def _opening(self, version: int | None) -> Generator[None]:
        """If the block fails because of a damaged manifest, raise an error that names it. Version None: the latest."""
        try:
            yield
        except TableUnavailableError as error:
            there = self.versions() if may_be_damage(str(error.__cause__)) else []
            number = max(there, default=0) if version is None else version
            files = LanceFileSession(self.uri, storage_options=self._storage_options)
            if number in there and self._cannot_be_opened(number, files):
                raise TableDamagedError(
                    f"The manifest of version {number} of the LanceDB table at {self.uri} cannot be read",
                    remedy="If the manifest is above head and empty after a power cut, run `ingest-pipeline recover`. "
                    "Otherwise run `ingest-pipeline recover --rebuild-catalog` for the newest readable version.",
                ) from error
            raise

    def _cannot_be_opened(self, version: int, files: LanceFileSession) -> bool:
        with translated(self.uri):
            fetch(files, manifest_name(version))
        try:
            with translated(self.uri):
                lance.dataset(self.uri, version, storage_options=self._storage_options)
        except TableUnavailableError:
            return True
        return False


@contextmanager
def translated(uri: str) -> Generator[None]:
    """Translate errors of Lance into errors of this package; Lance has no classes for most of them."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, OSError | ValueError | RuntimeError) and not is_panic(error):
            raise
        raise error_of(uri, error) from error
