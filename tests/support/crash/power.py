"""Power cuts: what is on a disk at some moment, and an audit of it against Postgres at that moment.

There are two kinds of disks. A `LoopDisk` is a real file system in a file; a raw copy of that file contains what the
system had written to the disk, and nothing that was still in memory. File systems write more than they have to: ext4,
XFS and btrfs write the name of a file with the file. `FlushedFiles` contains only what POSIX promises: the content of
a file at its last flush, under the names that its folder had at the last flush of the folder.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self
from unittest import mock

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.corpus.corpus import Corpus, open_table
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.database import Database

_IMAGE_BYTES = 24 << 20


class Disk(Protocol):
    """A disk with a folder of tables."""

    root: Path
    """The folder that is on the disk."""

    def flushed(self, descriptor: int) -> None:
        """Take notice that a file or a folder was flushed."""
        ...

    def after_a_cut(self) -> AbstractContextManager[Path]:
        """A folder with what would be left of the root if the power failed now."""
        ...


class LoopDisk:
    """A file system in a file.

    Args:
        directory: Where the file and its copies are. They are removed with the directory.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / "mounted"
        self._image = directory / "disk.img"
        self._copy = directory / "copy.img"
        self._copy_mounted = directory / "after_a_cut"

    def start(self) -> None:
        """Make the file system and mount it; skip the test if that is impossible here."""
        self.root.mkdir()
        self._copy_mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        options = ["-N", "2048", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        _run("mkfs.ext4", "-q", "-F", *options, str(self._image))
        _mount(self._image, self.root)

    def stop(self) -> None:
        for mounted in (self.root, self._copy_mounted):
            if os.path.ismount(mounted):
                subprocess.run(["umount", "--lazy", str(mounted)], check=True)

    def flushed(self, descriptor: int) -> None:
        """Nothing to note: the file is on the disk."""

    @contextmanager
    def after_a_cut(self) -> Generator[Path]:
        self.copy()
        _mount(self._copy, self._copy_mounted)
        try:
            yield self._copy_mounted
        finally:
            subprocess.run(["umount", str(self._copy_mounted)], check=True)

    def copy(self) -> None:
        """Remember what is on the disk at this moment."""
        subprocess.run(["cp", "--sparse=always", str(self._image), str(self._copy)], check=True)

    def continue_with_copy(self) -> None:
        """Mount the copy instead of the disk, as after a power cut."""
        subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        self._image, self._copy = self._copy, self._image
        _mount(self._image, self.root)


def _mount(image: Path, folder: Path) -> None:
    _run("mount", "-o", "loop", str(image), str(folder))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]}")
    if done.returncode != 0:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")


class FlushedFiles:
    """A folder of which only that is left which was flushed.

    Args:
        root: The folder. What it contains already is taken for flushed.
        copies: A folder for what is left of it.
    """

    def __init__(self, root: Path, copies: Path) -> None:
        self.root = root
        self._copies = copies
        self._cuts = 0
        self._names: dict[int, dict[str, os.stat_result]] = {}
        self._contents: dict[int, bytes] = {}
        for path in (root, *root.rglob("*")):
            opened = os.open(path, os.O_RDONLY)
            self.flushed(opened)
            os.close(opened)

    def flushed(self, descriptor: int) -> None:
        """Note the names in a folder, or the content of a file."""
        info = os.fstat(descriptor)
        if stat.S_ISDIR(info.st_mode):
            self._names[info.st_ino] = {one.name: one.stat(follow_symlinks=False) for one in os.scandir(descriptor)}
        else:
            self._contents[info.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    @contextmanager
    def after_a_cut(self) -> Generator[Path]:
        self._cuts += 1
        copy = self._copies / str(self._cuts)
        self._write(self.root.stat().st_ino, copy)
        yield copy
        shutil.rmtree(copy)

    def _write(self, folder: int, copy: Path) -> None:
        copy.mkdir(parents=True)
        for name, info in self._names.get(folder, {}).items():
            if stat.S_ISDIR(info.st_mode):
                self._write(info.st_ino, copy / name)
            else:
                (copy / name).write_bytes(self._contents.get(info.st_ino, b""))


class _CopiedCorpus(Corpus):
    """A corpus whose table is read in another folder than the one in the catalog."""

    def check_table(self, row: corpora.GenerationRow) -> None:
        """Any folder will do."""


class PowerCuts:
    """Audits what is on a disk at every boundary, after each flush and each COMMIT.

    Nothing is audited while this process has the lock of a generation: the audit would wait for the lock, and Postgres
    would forget the transaction.

    Args:
        database: The database of the catalog.
        disk: The disk with all tables.
    """

    def __init__(self, database: Database, disk: Disk) -> None:
        self.audits: Counter[tuple[str, str]] = Counter()
        """Number of audits at each side of each boundary."""
        self.violations: list[str] = []
        self._database, self._disk = database, disk
        self._mutex, self._in_audit = threading.Lock(), threading.local()
        self._holder: int | None = None
        self._is_changed = False
        self._sync = os.fsync

    def __enter__(self) -> Self:
        self._patch = mock.patch.object(os, "fsync", self._flush)
        self._patch.start()
        failpoints.install(self._passed)
        return self

    def __exit__(self, *_: object) -> None:
        failpoints.install(None)
        self._patch.stop()

    def _flush(self, descriptor: int) -> None:
        self._sync(descriptor)
        self._disk.flushed(descriptor)
        self._is_changed = True

    def _passed(self, boundary: Boundary, side: str) -> None:
        if getattr(self._in_audit, "value", False):
            return
        with self._mutex:
            here = threading.get_ident()
            if (boundary, side) == (Boundary.LOCK_TAKEN, "before"):
                self._holder = here
            if (boundary, side) == (Boundary.COMMIT, "after"):
                self._is_changed = True
                if self._holder == here:
                    self._holder = None
            if self._holder is None and self._is_changed and (boundary, side) != (Boundary.COMMIT, "before"):
                self._is_changed = False
                self._audit(boundary, side)

    def _audit(self, boundary: Boundary, side: str) -> None:
        self._in_audit.value = True
        try:
            with self._database.transaction() as connection:
                rows = connection.execute("SELECT DISTINCT corpus FROM ingest_pipeline.generation").fetchall()
                living = [one for row in rows for one in corpora.living_generations(connection, row["corpus"])]
            found = [row for row in living if Path(row.table_uri).is_relative_to(self._disk.root)]
            if not found:
                return
            self.audits[boundary, side] += 1
            with self._disk.after_a_cut() as folder:
                for row in found:
                    uri = str(folder / Path(row.table_uri).relative_to(self._disk.root))
                    table = open_table(self._database, row.name, uri)
                    corpus = _CopiedCorpus(row.name, self._database, table, row.corpus, row.state)
                    if wrong := set(_violations(corpus)):
                        # What the table itself has too is wrong without a power cut, as a foreign version is.
                        present = open_table(self._database, row.name, row.table_uri)
                        wrong -= set(_violations(replace(corpus, table=present)))
                    self.violations += [f"{boundary}:{side}: {one}" for one in sorted(wrong)]
        finally:
            self._in_audit.value = False


def _violations(corpus: Corpus) -> list[str]:
    try:
        return [str(violation) for violation in audit(corpus).violations]
    except Exception as error:  # noqa: BLE001  whatever the audit finds instead of a table
        return [repr(error)]
