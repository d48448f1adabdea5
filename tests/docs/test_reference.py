"""The generated parts of the documents are what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

import ingest_pipeline
from ingest_pipeline.postgres.database import Database
from tools import reference

_RUN = "run `make reference`"


def test_there_are_generated_parts() -> None:
    names = {page.name for page in reference.pages()}
    assert names >= {"asset_checks.md", "commands.md", "configuration.md", "errors.md", "schema.md"}


@pytest.mark.parametrize("page", reference.pages(), ids=lambda page: page.name)
def test_the_generated_parts_are_current(page: Path) -> None:
    text = page.read_text()
    assert reference.rendered(text, None) == text, _RUN


def test_the_page_on_tables_is_what_a_database_has(database: Database) -> None:
    text = (reference.REFERENCE / "schema.md").read_text()
    with database.transaction() as connection:
        assert reference.rendered(text, connection) == text, _RUN


def test_the_page_of_the_api_has_each_public_name() -> None:
    lines = (reference.REFERENCE / "api.md").read_text().splitlines()
    named = [line.removeprefix("::: ingest_pipeline.") for line in lines if line.startswith(":::")]
    assert sorted([*named, "errors"]) == sorted(ingest_pipeline.__all__)
