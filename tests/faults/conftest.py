"""One database for all of a file's tests, each with a corpus of its own: a database for each would take longer."""

from __future__ import annotations

import itertools

import pytest

from tests.support.servers.databases import empty_database

_names = itertools.count()


@pytest.fixture(scope="module")
def database_url(postgres: str, entrance: str) -> str:
    return empty_database(postgres, entrance)


@pytest.fixture
def corpus_name() -> str:
    return f"docs_{next(_names)}"
