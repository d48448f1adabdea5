"""One database for all of a file's tests, each with a corpus of its own: a database for each would take longer."""

from __future__ import annotations

import itertools
import os

import psycopg
import pytest

_names = itertools.count()


@pytest.fixture(scope="module")
def database_url(postgres: str, entrance: str) -> str:
    name = f"faults_{os.getpid()}_{next(_names)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return f"{entrance.rpartition('/')[0]}/{name}"


@pytest.fixture
def corpus_name() -> str:
    return f"docs_{next(_names)}"
