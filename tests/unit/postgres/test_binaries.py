"""Which Postgres programs are chosen, and what is said about those that cannot be run."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.postgres.embedded import binaries
from ingest_pipeline.postgres.embedded.binaries import ServerAccount, find_binaries


def program(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / "postgres").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "postgres").chmod(0o755)
    return folder


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A server that does not start, one of an older version twice, and a folder without one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    broken = program(tmp_path / "broken", "echo no memory >&2; exit 1")
    old = program(tmp_path / "old", "echo 'postgres (PostgreSQL) 15.18'")
    found = [broken, old, old, tmp_path / "nothing"]
    monkeypatch.setattr(binaries, "_candidates", Mock(return_value=found))
    return found


def test_a_server_that_does_not_start_is_named_if_the_data_need_it(folders: list[Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_binaries(ServerAccount(), "17")
    assert str(caught.value) == (
        "The data need Postgres 17, and only 15 can be run. Others do not start: "
        f"{folders[0] / 'postgres'} (no memory). Set INGEST_DATABASE_URL to use a server of your own instead."
    )


@pytest.mark.parametrize("major", [None, "15"])
def test_the_first_server_that_fits_is_chosen(folders: list[Path], major: str | None) -> None:
    assert find_binaries(ServerAccount(), major) == folders[1]
