"""The spool of a table: files with the vectors of recorded answers, kept until the vectors are published.

A file has the vectors of one saga's answers in little-endian float32, one row after the other, and nothing else. The
ledger has their texts' hashes and the checksum of the file, so a file that is missing, cut short or altered is noticed.
The name begins with the saga's id, as that of a data file does. The folder is part of the table's folder: the table's
storage options, permissions, copies and drops include it. Lance ignores it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
from lance.file import LanceFileSession

from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.errors import error_of
from ingest_pipeline.lance.files.flush import flush_folder, folder_of
from ingest_pipeline.types import Vectors

_FOLDER = "_spool"
# A second read distinguishes a damaged file from a damaged transfer.
_READS = 2


class SpoolFileLostError(Exception):
    """The store answers, but the file is missing or is not the one that was written. The message is the reason."""


def spool_name(saga: UUID, ordinal: int) -> str:
    """The name of a file, relative to the table's folder.

    Args:
        saga: Saga that sent the requests.
        ordinal: Number of the batch within the saga.
    """
    return f"{_FOLDER}/{saga}-{ordinal}.f32"


@dataclass(frozen=True, slots=True)
class Spool:
    """The spool of the table at one URI.

    Args:
        uri: Folder of the dataset.
        storage_options: What Lance needs to reach the store.
    """

    uri: str
    storage_options: dict[str, str] | None = None

    def write(self, name: str, answers: Sequence[Vectors]) -> bytes:
        """Write the vectors of some answers into one file. The file is durable when the call returns.

        Args:
            name: See `spool_name`. An existing file is replaced.
            answers: Vectors of shape (n, dimensions), in the order of the texts.

        Returns:
            The checksum of the file.

        Raises:
            TableUnavailableError: The store failed. A part of the file may exist.
        """
        contents = [np.ascontiguousarray(vectors, "<f4").data.cast("B") for vectors in answers]
        checksum = hashlib.sha256()
        for content in contents:
            checksum.update(content)
        self._write(name, contents)
        return checksum.digest()

    def read(self, name: str, checksum: bytes, dimensions: int) -> Vectors:
        """Read the vectors of a file.

        Args:
            name: See `spool_name`.
            checksum: What `write` returned.
            dimensions: Width of the vectors.

        Returns:
            Shape (n, dimensions).

        Raises:
            SpoolFileLostError: The file is missing, cut short or altered.
            TableUnavailableError: The store does not answer.
        """
        content = b""
        for _ in range(_READS):
            content = self._fetch(name)
            if is_intact(content, checksum):
                return np.frombuffer(content, "<f4").reshape(-1, dimensions)
        raise SpoolFileLostError(f"its {len(content)} bytes do not have the recorded checksum")

    def copy(self, name: str, target: Spool) -> None:
        """Copy a file to the spool of another table, under the same name. A missing file is no error.

        Raises:
            TableUnavailableError: One of the stores failed.
        """
        try:
            content = self._fetch(name)
        except SpoolFileLostError:
            return  # a look-up of its vectors will notice
        target._write(name, [memoryview(content)])

    def _write(self, name: str, contents: Sequence[memoryview]) -> None:
        folder = folder_of(self.uri)
        try:
            with boundary(Boundary.BATCH_SPOOLED):
                if folder is None:
                    self._upload(name, contents)
                else:
                    write_durably(folder, folder / name, contents)
        except (OSError, ValueError, RuntimeError) as error:
            raise error_of(self.uri, error) from error

    def _fetch(self, name: str) -> bytes:
        folder = folder_of(self.uri)
        try:
            return self._download(name) if folder is None else (folder / name).read_bytes()
        except (OSError, ValueError, RuntimeError) as error:
            if self._is_missing(folder, name):
                raise SpoolFileLostError("it is missing") from error
            raise error_of(self.uri, error) from error

    def _is_missing(self, folder: Path | None, name: str) -> bool:
        """Whether the store answers and lacks the file."""
        if folder is not None:
            # If the table is missing too, its disk is not mounted.
            return not (folder / name).exists() and (folder / "_versions").is_dir()
        try:
            return not self._session().contains(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise error_of(self.uri, error) from error

    def _upload(self, name: str, contents: Sequence[memoryview]) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.writelines(contents)
            file.flush()
            self._session().upload_file(file.name, name)

    def _download(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "copy"
            self._session().download_file(name, str(copy))
            return copy.read_bytes()

    def _session(self) -> LanceFileSession:
        return LanceFileSession(self.uri, storage_options=self.storage_options)


def is_intact(content: bytes, checksum: bytes) -> bool:
    """Whether the content of a file is the one that was written."""
    return hashlib.sha256(content).digest() == checksum


def write_durably(table: Path, path: Path, contents: Sequence[memoryview]) -> None:
    """Write a file and flush it, with the folder that may be new.

    Raises:
        OSError: The disk is full or failed, or the table was dropped.
    """
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.writelines(contents)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(path.parent)
    flush_folder(table)
