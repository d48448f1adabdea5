"""Creating a corpus, finding it again, and refusing what is somebody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import lance
import pyarrow as pa
import pytest

from ingest_pipeline.corpus import CorpusSettings, open_corpus
from ingest_pipeline.database import Database
from ingest_pipeline.errors import (
    AuditError,
    ConfigurationError,
    CorpusMismatchError,
    NotOurTableError,
    SchemaNewerError,
    TableInUseError,
)
from ingest_pipeline.lance_table import LanceTable
from ingest_pipeline.transaction import transaction
from tests.support import crash_jobs
from tests.support.crash import Child
from tests.support.crash_tables import SCHEMA, rows_of


@pytest.fixture
def settings(tmp_path: Path) -> CorpusSettings:
    return CorpusSettings("prices", str(tmp_path / "prices.lance"), SCHEMA)


def test_a_corpus_is_created_once_and_found_again(database: Database, settings: CorpusSettings) -> None:
    created = open_corpus(database, settings).head()
    assert open_corpus(database, settings).head() == created
    assert created.head_version == 1


def test_a_table_left_by_a_creation_that_died_is_taken_up(database: Database, settings: CorpusSettings) -> None:
    owner = f"{database.installation}/{settings.name}"
    LanceTable(settings.table_uri).create(SCHEMA, owner=owner, saga=uuid4())
    corpus = open_corpus(database, settings)
    with transaction(corpus) as change:
        change.add(rows_of(["a"]))
    assert corpus.table.latest_version() == corpus.head().head_version


def test_a_table_that_is_not_ours_is_refused_and_not_touched(database: Database, settings: CorpusSettings) -> None:
    lance.write_dataset(rows_of(["theirs"]), settings.table_uri)
    with pytest.raises(NotOurTableError):
        open_corpus(database, settings)
    assert lance.dataset(settings.table_uri).version == 1


def test_a_table_of_another_installation_is_refused(database: Database, settings: CorpusSettings) -> None:
    LanceTable(settings.table_uri).create(SCHEMA, owner=f"{uuid4()}/{settings.name}", saga=uuid4())
    with pytest.raises(NotOurTableError):
        open_corpus(database, settings)


def test_a_table_replaced_behind_our_back_is_refused(database: Database, settings: CorpusSettings) -> None:
    open_corpus(database, settings)
    lance.write_dataset(rows_of(["theirs"]), settings.table_uri, mode="overwrite", schema=SCHEMA)
    with pytest.raises((NotOurTableError, AuditError)):
        open_corpus(database, settings)


def test_two_corpora_cannot_share_a_table(database: Database, settings: CorpusSettings) -> None:
    open_corpus(database, settings)
    with pytest.raises(TableInUseError):
        open_corpus(database, replace(settings, name="other"))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "/elsewhere"},
        {"partition_by": "folder"},
        {"embedding": "other-model/4"},
        {"table_uri": "/elsewhere.lance"},
        {"schema": pa.schema([SCHEMA.field("id"), pa.field("vector", pa.list_(pa.float32(), 8))])},
        {"schema": SCHEMA.append(pa.field("more", pa.int32()))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_cannot_change_in_place_are_refused(
    database: Database, settings: CorpusSettings, change: dict[str, Any]
) -> None:
    head = open_corpus(database, settings).head()
    with pytest.raises(CorpusMismatchError):
        open_corpus(database, replace(settings, **change))
    assert open_corpus(database, settings).head() == head


def test_a_name_that_is_no_name_is_refused(database: Database, settings: CorpusSettings) -> None:
    with pytest.raises(ConfigurationError):
        open_corpus(database, replace(settings, name="Not A Name"))
    assert not LanceTable(settings.table_uri).exists()


def test_processes_that_create_at_once_get_one_corpus(database: Database, settings: CorpusSettings) -> None:
    children = [Child(crash_jobs.create, database.url, settings) for _ in range(4)]
    outcomes = [child.outcome() for child in children]
    assert {(outcome.error, outcome.result) for outcome in outcomes} == {(None, 1)}
    assert open_corpus(database, settings).table.versions() == [1]


def test_a_database_of_a_later_release_is_refused(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO ingest_pipeline.migration (number, name) VALUES (9999, 'later')")
    with pytest.raises(SchemaNewerError):
        Database(database.url).open()
