"""Databases whose tables the package makes while the test runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.servers.databases import empty_database
from tests.support.servers.embedded_users import stop_at_once


@pytest.fixture
def database_url(postgres: str, entrance: str) -> str:
    """The url of an empty database."""
    return empty_database(postgres, entrance)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "pg"
        for log in Path(folder).rglob("server.log"):
            stop_at_once(log.parent)


@pytest.fixture(scope="module")
def creation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a server that was started and stopped, and what this process flushed meanwhile, in order."""
    folder, flushed, sync = tmp_path_factory.mktemp("stopped") / "pg", list[str](), os.fsync

    def note(opened: int) -> None:
        sync(opened)
        flushed.append(str(Path(f"/proc/self/fd/{opened}").readlink()))

    server = EmbeddedPostgres(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", note)
        server.start()
    server.release()
    (folder / "port").unlink()
    return folder, flushed


@pytest.fixture(scope="module")
def stopped(creation: tuple[Path, list[str]]) -> Path:
    """The folder of a server that was started and stopped; a copy of it is made faster than another one."""
    return creation[0]


@pytest.fixture
def server(directory: Path, stopped: Path) -> Iterator[EmbeddedPostgres]:
    subprocess.run(["cp", "-a", str(stopped), str(directory)], check=True)
    server = EmbeddedPostgres(directory)
    yield server
    stop_at_once(directory)
    with contextlib.suppress(ConfigurationError):
        server.release()
