"""Databases whose tables the package makes while the test runs."""

from __future__ import annotations

import pytest

from tests.support.servers.databases import empty_database


@pytest.fixture
def database_url(postgres: str, entrance: str) -> str:
    """The url of an empty database."""
    return empty_database(postgres, entrance)
