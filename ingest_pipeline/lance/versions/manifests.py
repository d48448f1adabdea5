"""Manifests: how a version is made without being visible, and how it becomes visible later.

Lance and LanceDB find versions by the canonical names of their manifests. `commit_staged` writes the
manifest under a private name beside them, so no reader sees the version. Postgres records that name in the transaction
that moves head. After COMMIT the manifest gets its canonical name. Any process may do that, any number of times, and
never over the manifest of another version.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import lance
from lance.commit import CommitConflictError
from lance.file import LanceFileSession

from ingest_pipeline.errors import TableUnavailableError
from ingest_pipeline.lance.changes import fragment_of
from ingest_pipeline.lance.files.flush import flush_commit, folder_of
from ingest_pipeline.lance.versions.version_mark import VersionMark

# The names of manifests count down, so that a listing begins with the latest version.
LAST_VERSION = 2**64 - 1
FOLDER = "_versions"
_COMMIT_TIMEOUT = timedelta(seconds=60)


class CommitRefusedError(TableUnavailableError):
    """The commit was refused, because another writer changed the same fragments or took the number first."""


def manifest_name(version: int) -> str:
    """The canonical name of the manifest of a version, relative to the table's folder."""
    return f"{FOLDER}/{LAST_VERSION - version:020d}.manifest"


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version that was just made."""

    number: int
    manifest: str | None
    """Name of its staged manifest. None: the version is visible to readers already."""
    _dataset: lance.LanceDataset

    def fragments_named(self, names: Iterable[str]) -> dict[str, int]:
        """Fragment ids by data file name, for those names that the version contains."""
        wanted = set(names)
        found: dict[str, int] = {}
        # Lance numbers fragments upwards, so the ones just added come first.
        for number in sorted(self._dataset.fragment_ids(), reverse=True):
            if len(found) == len(wanted):
                break
            name = fragment_of(self._dataset, number).metadata.files[0].path
            if name in wanted:
                found[name] = number
        return found


class _Staging:
    """The namespace of one commit, which keeps the name of the manifest that Lance staged.

    Lance calls it from a thread of its own, and passes requests of the Lance namespace specification as dictionaries.
    An exception here would reach the caller as an unknown result, so nothing is decided here.

    Args:
        uri: The table.
    """

    def __init__(self, uri: str) -> None:
        self._root = _path_of(uri)
        self.manifest = ""
        """Name of the staged manifest, relative to the folder of manifests."""

    def namespace_id(self) -> str:
        """Name of this namespace in Lance's messages."""
        return "ingest_pipeline"

    def create_table_version(self, request: Mapping[str, Any]) -> _Response:
        """Take note of the staged manifest."""
        self.manifest = str(request["manifest_path"]).rpartition("/")[2]
        return _Response(version={"version": request["version"], "manifest_path": request["manifest_path"]})

    def describe_table_version(self, request: Mapping[str, Any]) -> _Response:
        """The canonical manifest of a version, which a restore reads."""
        version = int(request["version"])
        return _Response(version={"version": version, "manifest_path": f"{self._root}/{manifest_name(version)}"})


class _Response(dict[str, Any]):
    def model_dump(self, **_: object) -> dict[str, Any]:
        """The response as Lance reads it."""
        return dict(self)


def _path_of(uri: str) -> str:
    """The table's folder as Lance names it: relative to the root of the disk or of the bucket."""
    folder = folder_of(uri)
    path = unquote(urlsplit(uri).path) if folder is None else str(folder.absolute())
    return path.strip("/")


def commit_staged(
    uri: str,
    options: dict[str, str] | None,
    base: lance.LanceDataset,
    operation: lance.LanceOperation.BaseOperation,
    mark: VersionMark,
) -> NewVersion:
    """Commit an operation in one Lance transaction, and flush it. No reader sees the version.

    Args:
        uri: The table.
        options: What Lance needs to reach the store.
        base: The table at the version that the operation was planned on.
        operation: The change.
        mark: What the transaction carries.

    Raises:
        CommitRefusedError: Another program committed a conflicting change in between.
    """
    transaction = lance.Transaction(
        read_version=base.version,
        operation=operation,
        uuid=str(uuid.uuid4()),
        transaction_properties=mark.properties(),
    )
    staging = _Staging(uri)
    try:
        made = lance.LanceDataset.commit(
            base,
            transaction,
            storage_options=options,
            max_retries=0,
            namespace_client=cast("Any", staging),
            table_id=[uri],
            namespace_client_managed_versioning=True,
            commit_timeout=_COMMIT_TIMEOUT,
        )
    except CommitConflictError as error:
        raise CommitRefusedError(f"A commit on version {base.version} of {uri} was refused") from error
    flush_commit(uri, staging.manifest, transaction)
    return NewVersion(made.version, staging.manifest, made)


def find_staged(uri: str, options: dict[str, str], staged: str) -> bytes | None:
    """The content of a staged manifest; empty for a local one. None: the manifest has been installed.

    Args:
        uri: The table.
        options: What Lance needs to reach the store.
        staged: Name of the manifest, relative to the folder of manifests.
    """
    folder, name = folder_of(uri), f"{FOLDER}/{staged}"
    if folder is not None:
        return b"" if (folder / name).exists() else None
    files = LanceFileSession(uri, storage_options=options)
    if not files.contains(name):
        return None
    with TemporaryDirectory() as local:
        try:
            files.download_file(name, f"{local}/manifest")
        except OSError:
            if files.contains(name):
                raise
            return None  # another process has installed it and removed this name in between
        return Path(local, "manifest").read_bytes()


def put_manifest(
    uri: str, options: dict[str, str], version: int, staged: str, content: bytes, *, replace: bool
) -> bool:
    """Give a staged manifest its canonical name, besides its own one.

    Args:
        uri: The table.
        options: What Lance needs to reach the store.
        version: The version of the manifest.
        staged: Its name, relative to the folder of manifests.
        content: Its content, as `find_staged` returns it.
        replace: Replace another manifest that has the canonical name.

    Returns:
        False if nothing was done, because the canonical name is taken. Either another process did this before, or
        another writer made a version of the same number.
    """
    folder, target = folder_of(uri), manifest_name(version)
    if folder is None:
        # obstore is imported for object stores only.
        from ingest_pipeline.lance.versions.manifest_objects import put_object  # noqa: PLC0415

        return put_object(uri, options, target, content, replace=replace)
    try:
        if replace:
            (folder / target).unlink(missing_ok=True)
        os.link(folder / FOLDER / staged, folder / target)
    except (FileExistsError, FileNotFoundError):
        return False
    return True


def remove_staged(uri: str, options: dict[str, str], staged: str) -> None:
    """Remove the private name of an installed manifest.

    A file system with a journal records the names of one folder in the order of their changes. So after a power cut
    the manifest, which was flushed before COMMIT, has one of the two names at least. Nothing more has to be flushed.
    """
    folder, name = folder_of(uri), f"{FOLDER}/{staged}"
    if folder is not None:
        (folder / name).unlink(missing_ok=True)
        return
    files = LanceFileSession(uri, storage_options=options)
    try:
        files.delete_file(name)
    except OSError:
        if files.contains(name):
            raise
