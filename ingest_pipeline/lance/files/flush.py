"""Flushes files that Lance wrote into a local folder, so that they survive a power cut. Lance itself never flushes.

Files are flushed first, then the folders that contain them. Everything that a publication needs is on disk before
Postgres commits it: data files and index segments before the saga is prepared, the files of the Lance commit under the
lock. An object store keeps what it confirmed, so it needs no flush.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lance

from ingest_pipeline.failpoints import Boundary, boundary

# Errors of file systems that do not support flushing a folder.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def folder_of(uri: str) -> Path | None:
    """The folder of a table on a local file system; None if it is in an object store."""
    if "://" not in uri:
        return Path(uri.removeprefix("file:"))
    scheme, _, path, *_ = urlsplit(uri)
    return Path(unquote(path)) if scheme in ("file", "file-object-store") else None


def flush_data_file(uri: str, name: str) -> None:
    """Flush a data file of a table."""
    folder = folder_of(uri)
    if folder is not None:
        _flush(folder, [folder / "data" / name])


def flush_segment(uri: str, uuid: str) -> None:
    """Flush all files of an index segment of a table."""
    folder = folder_of(uri)
    if folder is not None:
        _flush(folder, (path for path in (folder / "_indices" / uuid).rglob("*") if path.is_file()))


def flush_commit(uri: str, manifest: str, transaction: lance.Transaction) -> None:
    """Flush the files of one commit: manifest, transaction, and deletion files.

    Args:
        uri: The table.
        manifest: Name of the staged manifest, relative to the folder of manifests.
        transaction: The transaction that made the version.
    """
    folder = folder_of(uri)
    if folder is None:
        return
    updated = getattr(transaction.operation, "updated_fragments", ())
    deletions = [
        folder / fragment.deletion_file.path(fragment.id)
        for fragment in updated
        if fragment.deletion_file is not None and fragment.deletion_file.read_version == transaction.read_version
    ]
    transactions = (folder / "_transactions").glob(f"*-{transaction.uuid}.txn")
    _flush(folder, [*deletions, *transactions, folder / "_versions" / manifest])


def flush_table(uri: str) -> None:
    """Flush all files of a table that may be new, and the folders above it, which may be new too."""
    folder = folder_of(uri)
    if folder is not None:
        above = folder.absolute().parents
        # Another writer may remove files meanwhile.
        _flush(folder, [path for path in folder.rglob("*") if path.is_file()], above, missing_ok=True)


def _flush(folder: Path, files: Iterable[Path], above: Iterable[Path] = (), *, missing_ok: bool = False) -> None:
    with boundary(Boundary.FLUSHED):
        # Any of the folders in between may be new.
        folders: dict[Path, None] = {}
        for file in files:
            with suppress(FileNotFoundError) if missing_ok else nullcontext():
                _flush_file(file)
                folders |= {parent: None for parent in file.parents if parent.is_relative_to(folder)}
        for each in (*folders, *above):
            flush_folder(each)


def _flush_file(file: Path) -> None:
    _sync(file, os.O_RDONLY)


def flush_folder(folder: Path) -> None:
    """Flush a folder, so that the names of new files in it survive a power cut."""
    try:
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # this user cannot have created anything in that folder
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync(path: Path, flags: int) -> None:
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
