"""A corpus with settings of its own, as Dagster and as the command line see it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.dagster.cli import Cli
from tests.support.dagster.world import DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer


@pytest.fixture
def scheme() -> str:
    """The partition scheme of the corpus."""
    return "file"


@pytest.fixture
def variables(scheme: str) -> dict[str, str]:
    """Environment variables of the corpus in addition to those that every corpus has."""
    return {"INGEST_PARTITION_BY": scheme}


@pytest.fixture
def dagster(
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> Generator[DagsterWorld]:
    with DagsterWorld.over(tmp_path, database_url, embeddings, monkeypatch, **variables) as world:
        yield world


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    return Cli.over(tmp_path, database_url, embeddings)
