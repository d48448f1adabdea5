"""Corpora that other programs read: one that all may read, and one with a list of readers for each document."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.postgres.database import Database
from tests.support.servers.databases import copy_of
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import World

GUIDE = "# Travel\n\nHotels are booked by the office.\n\n# Expenses\n\nReceipts are kept for a year.\n"
DOCUMENTS = {
    "guide.md": GUIDE,
    "salaries.md": "# Salaries\n\nSalaries are paid on the last day of the month.\n",
    "unlisted.md": "# Drafts\n\nA draft about salaries that nobody may read.\n",
}
READERS = {"guide.md": ["everyone"], "salaries.md": ["board"]}


@pytest.fixture(scope="module")
def endpoint() -> Generator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture(scope="module")
def libraries(
    postgres: str, migrated: str, endpoint: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[dict[str, World]]:
    """Both corpora, published once for the tests of a file, which only read them."""
    with Database(copy_of(postgres, migrated)) as database:
        yield {
            "open": _library(tmp_path_factory.mktemp("open"), database, endpoint, "open"),
            "guarded": _library(
                tmp_path_factory.mktemp("guarded"),
                database,
                endpoint,
                "guarded",
                columns={"readers": "list<string>"},
                access="readers",
            ),
        }


def _library(directory: Path, database: Database, endpoint: EmbeddingServer, name: str, **options: Any) -> World:
    world = World.over(directory, database, endpoint, name)
    world.settings = world.settings.replace(
        database_url=database.url,
        embedding_base_url=endpoint.base_url,
        embedding_api_key="none",
        chunk_size=60,
        chunk_overlap=0,
        **options,
    )
    for key, text in DOCUMENTS.items():
        world.put(key, text)
        if options and key in READERS:
            world.put(f"{key}.metadata.json", json.dumps({"readers": READERS[key]}))
    world.ingest()
    return world


@pytest.fixture
def library(libraries: dict[str, World]) -> OpenCorpus:
    """The corpus that all may read."""
    return opened(libraries["open"])


@pytest.fixture
def guarded(libraries: dict[str, World]) -> OpenCorpus:
    """The corpus with a list of readers for each document."""
    return opened(libraries["guarded"])


def opened(world: World) -> OpenCorpus:
    return OpenCorpus(world.database, world.settings)
