"""The power fails right after a publication was committed: what Postgres confirmed is on the disk under the table, too.

A disk is a file here, mounted through a loop device. A raw copy of the file holds what had reached the disk, and
nothing of what the system still kept in memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.types import Retention
from tests.support.world import World, paragraphs

_SIZE = 48 << 20


class LoopDisk:
    """A file system in a file."""

    def __init__(self, directory: Path) -> None:
        self.mounted = directory / "mounted"
        self._image = directory / "disk.img"
        self._copies = 0

    def start(self) -> None:
        self.mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_SIZE)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()

    def copied(self) -> Path:
        """A copy of what is on the disk at this moment."""
        self._copies += 1
        copy = self._image.with_name(f"copy{self._copies}.img")
        shutil.copyfile(self._image, copy)
        return copy

    def replace_by(self, copy: Path) -> None:
        """Go on with what the disk held when it was copied."""
        self.stop()
        self._image = copy
        self._mount()

    def stop(self) -> None:
        if os.path.ismount(self.mounted):
            subprocess.run(["umount", "--lazy", str(self.mounted)], check=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.mounted))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {command[0]}")
    if done.returncode != 0:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Generator[LoopDisk]:
    directory = tmp_path / "power"
    directory.mkdir()
    disk = LoopDisk(directory)
    try:
        disk.start()
        yield disk
    finally:
        disk.stop()


@pytest.mark.promise("disks")
def test_a_confirmed_publication_survives_a_power_cut(world: World, disk: LoopDisk) -> None:
    world = World(world.database, world.settings.replace(lancedb_uri=str(disk.mounted / "lancedb")), world.embeddings)
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.put("a.txt", paragraphs("alpha again", 2))
    copies: list[Path] = []

    def copy(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.ACKNOWLEDGED, "before"):
            copies.append(disk.copied())

    failpoints.install(copy)
    try:
        world.ingest()
    finally:
        failpoints.install(None)
    disk.replace_by(copies[0])
    world = World(world.database, world.settings, world.embeddings)
    assert world.audit().violations == []
    assert "alpha again" in world.text_at("a.txt")
    world.put("b.txt", paragraphs("after", 1))
    world.ingest()
    world.check_nothing_left()


@pytest.mark.promise("disks")
def test_every_file_of_a_publication_is_flushed_with_its_folder_before_postgres_commits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each edit here writes a data file, a deletion file, a transaction and a manifest, and an index later."""
    flushed: list[str] = []
    sync = os.fsync

    def note(opened: int) -> None:
        sync(opened)
        flushed.append(str(Path(f"/proc/self/fd/{opened}").readlink()))

    table = Path(world.settings.table_uri)
    there: set[Path] = set()
    published: list[int] = []

    def check(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.VERSION_CHECKED, "after"):
            new = {path for path in table.rglob("*") if path.is_file() and "hint" not in path.name} - there
            needed = {*new, *(parent for path in new for parent in path.parents if parent.is_relative_to(table))}
            assert {str(path) for path in needed} <= set(flushed)
            published.append(len(new))
            there.update(new)

    monkeypatch.setattr(os, "fsync", note)
    failpoints.install(check)
    try:
        for text in ("one", "two", "three"):
            world.put("a.txt", paragraphs(text, 3))
            world.put("b.txt", paragraphs("still", 2))
            world.ingest()
        maintain(world.corpus, Retention())
        world.roll_back(3, "a.txt")
    finally:
        failpoints.install(None)
    assert len(published) >= 5
    assert {str(parent) for parent in (table, *table.parents)} <= set(flushed), "made with the table"


@pytest.mark.promise("disks")
@pytest.mark.parametrize(("content", "opened"), [(b"", True), (b"", False), (bytes(400), False)])
def test_a_commit_interrupted_by_a_power_cut_is_undone_by_a_recovery(
    world: World, content: bytes, opened: bool
) -> None:
    """The manifest got its name, and none of its bytes, before Postgres had committed."""
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    name = f"{2**64 - 1 - (world.head + 1):020d}.manifest"
    corpus = world.corpus if opened else find_corpus(world.database, world.settings)
    (Path(world.settings.table_uri) / "_versions" / name).write_bytes(content)
    recover(corpus, silence=0)
    world = World(world.database, world.settings, world.embeddings)
    assert world.audit().violations == []
    world.put("a.txt", paragraphs("alpha again", 2))
    world.ingest()
    world.check_nothing_left()
