"""A corpus with settings of its own, as Dagster and as the command line see it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from ingest_pipeline.postgres.database import Database
from tests.support.dagster.cli import Cli
from tests.support.dagster.output import without_mirror
from tests.support.dagster.pooled_storage import kept_connections, make_tables
from tests.support.dagster.world import DagsterWorld
from tests.support.servers import pooler
from tests.support.servers.databases import copy_of, empty_database, has_ended
from tests.support.servers.embedding_server import EmbeddingServer


@pytest.fixture(autouse=True)
def _kept_connections() -> Generator[None]:
    with kept_connections():
        yield


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose definitions the command line loads in this process is on the path until the test ends."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(autouse=True)
def _no_mirror() -> Generator[None]:
    with without_mirror():
        yield


@pytest.fixture(autouse=True)
def _no_wait_before_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Dagster retries it retries at once."""
    monkeypatch.setattr("ingest_pipeline.assets.ingest._RETRY_SECONDS", 0)


@pytest.fixture(scope="session")
def template(postgres: str, entrance: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The url of a database with the tables of the package and of Dagster, and nothing in them."""
    url = empty_database(postgres, entrance)
    if not pooler.WANTED:  # its connections to the template would forbid a copy
        with kept_connections(), Database(url):
            make_tables(url, tmp_path_factory.mktemp("template"))
    return url


@pytest.fixture
def database_url(postgres: str, entrance: str, template: str) -> Generator[str]:
    """The url of a database that has all tables already; `ui/` and `definitions/` see them made."""
    if pooler.WANTED:
        yield empty_database(postgres, entrance)
        return
    url = copy_of(postgres, template)
    yield url
    has_ended(url)


@pytest.fixture
def scheme() -> str:
    """The partition scheme of the corpus."""
    return "file"


@pytest.fixture
def variables(scheme: str) -> dict[str, str]:
    """Environment variables of the corpus in addition to those that every corpus has."""
    return {"INGEST_PARTITION_BY": scheme}


@pytest.fixture
def world() -> type[DagsterWorld]:
    """What the fixture `dagster` is."""
    return DagsterWorld


@pytest.fixture
def dagster(  # noqa: PLR0917  pytest's fixtures come as arguments
    world: type[DagsterWorld],
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> Generator[DagsterWorld]:
    with world.over(tmp_path, database_url, embeddings, monkeypatch, **variables) as opened:
        yield opened


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    return Cli.over(tmp_path, database_url, embeddings)
