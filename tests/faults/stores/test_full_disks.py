"""The disk under Postgres or under the table is full, for real: a small file system, and a file that fills it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from threading import Event, Thread

import pytest

from ingest_pipeline.errors import DatabaseUnavailableError, IngestError, TableUnavailableError
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.world import World, paragraphs

_MIB = 1 << 20
OLD, NEW = paragraphs("old", 2), paragraphs("new", 200)


@contextmanager
def small_disk(directory: Path, size: int) -> Generator[Path]:
    """A file system of so many bytes. Its files are gone with it."""
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(directory)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this user may not mount a file system: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        # Lazily, since a client that a test left open may still hold a file.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def full(disk: Path) -> Generator[None]:
    """No byte is free on the disk while the block runs; what a server frees meanwhile is taken at once."""
    ballast = disk / "ballast"
    ended = Event()

    def fill(file: RawIOBase) -> None:
        while not ended.wait(0.002):
            with suppress(OSError):
                file.write(bytes(shutil.disk_usage(disk).free))

    with ballast.open("wb", buffering=0) as file:
        file.write(bytes(shutil.disk_usage(disk).free))
        filling = Thread(target=fill, args=(file,))
        filling.start()
        try:
            yield
        finally:
            ended.set()
            filling.join()
            ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    with small_disk(tmp_path / "disk", 4 * _MIB) as mounted:
        yield mounted


@pytest.fixture
def small_postgres(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, str]]:
    """A server of its own on a small disk, and the url of its database."""
    directory = tmp_path_factory.mktemp("small")
    with small_disk(directory / "disk", 160 * _MIB) as mounted:
        server = EmbeddedPostgres(mounted / "postgres")
        url = server.start()
        assert (mounted / "postgres" / "data").is_dir()
        yield mounted, url
        if pid := server.postmaster_pid():
            os.kill(pid, signal.SIGQUIT)  # its last checkpoint is not needed
        server.release()


def shows(world: World, text: str) -> bool:
    return "".join(world.text_at("a.txt").split()) == "".join(text.split())


def about_to_replace(world: World) -> World:
    world.put("a.txt", OLD)
    world.ingest()
    world.put("a.txt", NEW)
    world.embeddings.reset_counters()
    return world


def check_goes_on(world: World) -> None:
    """With room again, the next run does the rest and pays for nothing twice."""
    world.check()
    world.recover()
    assert shows(world, OLD)
    world.check_nothing_left()
    world.ingest()
    assert shows(world, NEW)
    world.check_nothing_left()


@pytest.mark.promise("disks")
def test_a_full_disk_of_the_table_changes_nothing_and_is_named(world: World, disk: Path) -> None:
    world = about_to_replace(World(world.database, world.settings.replace(lancedb_uri=str(disk)), world.embeddings))
    with full(disk):
        with pytest.raises(TableUnavailableError, match=r"(?i)no space left.*free space"):
            world.ingest()
        assert shows(world, OLD)
        with pytest.raises(IngestError):
            world.ingest()
    assert world.embeddings.embedded == world.recorded_vectors > 0
    check_goes_on(world)
    assert world.embeddings.embedded == len(world.chunks("a.txt"))


@pytest.mark.promise("disks")
def test_a_full_disk_of_postgres_changes_nothing_and_is_named(world: World, small_postgres: tuple[Path, str]) -> None:
    disk, url = small_postgres
    with Database(url) as database:
        world = about_to_replace(World(database, world.settings, world.embeddings))
        with full(disk):
            with pytest.raises(DatabaseUnavailableError, match=r"(?i)no space left.*Make room"):
                world.ingest()
            assert shows(world, OLD)
        check_goes_on(world)
