"""Creating a corpus, finding it again, and refusing what is somebody else's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import lance
import pyarrow as pa
import pytest

from ingest_pipeline.corpus.corpus import CorpusSettings
from ingest_pipeline.corpus.opening import open_corpus
from ingest_pipeline.corpus.table_identity import this_database
from ingest_pipeline.errors import (
    AuditError,
    ConfigurationError,
    CorpusMismatchError,
    GenerationRetiredError,
    NotOurTableError,
    SchemaNewerError,
    TableInUseError,
)
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.postgres.catalog.binding import binding_of
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.saga.transaction import transaction
from ingest_pipeline.sources.source_url import canonical_url
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.tables import SCHEMA, rows_of

WIDER = pa.schema([SCHEMA.field("id"), pa.field("vector", pa.list_(pa.float32(), 8))])


@pytest.fixture
def settings(tmp_path: Path) -> CorpusSettings:
    return CorpusSettings("prices", str(tmp_path / "prices.lance"), SCHEMA)


def here(database: Database) -> VersionMark:
    with database.transaction() as connection:
        return VersionMark(uuid4(), this_database(connection).identity)


def test_a_corpus_is_created_once_and_found_again(database: Database, settings: CorpusSettings) -> None:
    created = open_corpus(database, settings).head()
    assert open_corpus(database, settings).head() == created
    assert created.head_version == 1


def test_a_table_of_a_creation_that_died_is_used(database: Database, settings: CorpusSettings) -> None:
    LanceTable(settings.table_uri).create(
        SCHEMA, owner=f"{database.installation}/{settings.generation}", mark=here(database)
    )
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
    LanceTable(settings.table_uri).create(SCHEMA, owner=f"{uuid4()}/{settings.generation}", mark=here(database))
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
        open_corpus(database, replace(settings, generation="other"))


@pytest.mark.parametrize(
    "change",
    [
        {"source": "/elsewhere"},
        {"partition_by": "folder"},
        {"embedding": "other-model/4"},
        {"table_uri": "/elsewhere.lance"},
        {"schema": WIDER},
        {"schema": SCHEMA.append(pa.field("more", pa.int32()))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_that_cannot_change_in_place_are_refused(
    database: Database, settings: CorpusSettings, change: dict[str, Any]
) -> None:
    with transaction(open_corpus(database, settings)) as published:
        published.add(rows_of(["a"]))
    head = open_corpus(database, settings).head()
    with pytest.raises(CorpusMismatchError):
        open_corpus(database, replace(settings, **change))
    assert open_corpus(database, settings).head() == head


@pytest.mark.promise("binding")
@pytest.mark.parametrize(
    "change",
    [
        {"source": "/elsewhere"},
        {"partition_by": "folder"},
        {"embedding": "other-model/4"},
        {"schema": WIDER},
        {"schema": SCHEMA.append(pa.field("more", pa.int32()))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_corpus_into_which_nothing_was_published_takes_other_settings(
    database: Database, settings: CorpusSettings, change: dict[str, Any]
) -> None:
    open_corpus(database, settings)
    wanted = replace(settings, **change)
    corpus = open_corpus(database, wanted)
    assert (corpus.generation, binding_of(corpus.head())) == ("prices", wanted.binding)
    assert corpus.table.schema.names == wanted.schema.names
    assert corpus.table.schema.field("vector").type == wanted.schema.field("vector").type
    assert corpus.table.latest_version() == corpus.head().head_version


def test_an_empty_table_moves_to_another_folder(database: Database, settings: CorpusSettings, tmp_path: Path) -> None:
    open_corpus(database, settings)
    moved = open_corpus(database, replace(settings, table_uri=str(tmp_path / "elsewhere" / "prices.lance")))
    assert moved.head().table_uri == moved.table.uri == str(tmp_path / "elsewhere" / "prices-2.lance")
    assert not Path(settings.table_uri).exists()
    back = open_corpus(database, settings)
    assert back.head().table_uri == str(tmp_path / "prices-3.lance")
    with transaction(back) as change:
        change.add(rows_of(["a"]))
    assert open_corpus(database, settings).head().head_version == 2
    with pytest.raises(CorpusMismatchError, match="relocate --table"):
        open_corpus(database, replace(settings, table_uri=str(tmp_path / "elsewhere" / "prices.lance")))


def test_a_missing_empty_table_is_created_again(database: Database, settings: CorpusSettings) -> None:
    open_corpus(database, settings)
    shutil.rmtree(settings.table_uri)
    corpus = open_corpus(database, settings)
    with transaction(corpus) as change:
        change.add(rows_of(["a"]))
    assert audit(corpus).violations == []


def test_settings_do_not_change_while_a_writer_is_active(database: Database, settings: CorpusSettings) -> None:
    writer = Child(crash_jobs.add_rows, database.url, settings, ["a"], stop_at=Place(Boundary.PREPARED, "after"))
    assert writer.wait_until_stopped()
    with pytest.raises(CorpusMismatchError, match="is working on the corpus"):
        open_corpus(database, replace(settings, source="/elsewhere"))
    writer.resume()
    assert writer.outcome().result == 2


@pytest.mark.promise("binding")
def test_a_writer_that_began_before_the_settings_changed_publishes_nothing(
    database: Database, settings: CorpusSettings
) -> None:
    late = open_corpus(database, settings)
    open_corpus(database, replace(settings, embedding="other-model/4"))
    with pytest.raises(GenerationRetiredError), transaction(late) as change:
        change.add(rows_of(["a"]))
    assert late.head().head_version == 1


def test_a_dead_writers_saga_does_not_keep_an_empty_corpus_bound(database: Database, settings: CorpusSettings) -> None:
    dead = Child(crash_jobs.add_rows, database.url, settings, ["a"], kill_at=Place(Boundary.LANCE_COMMIT, "after", 2))
    assert dead.outcome().killed
    corpus = open_corpus(database, replace(settings, schema=WIDER))
    assert corpus.table.schema.field("vector").type == WIDER.field("vector").type
    assert corpus.table.latest_version() == corpus.head().head_version
    assert audit(corpus).violations == []


@pytest.mark.parametrize(
    "change", [{"schema": WIDER}, {"embedding": "other-model/4"}], ids=lambda change: next(iter(change))
)
def test_processes_that_change_settings_at_once_end_with_one_corpus(
    database: Database, settings: CorpusSettings, change: dict[str, Any]
) -> None:
    open_corpus(database, settings)
    wanted = replace(settings, **change)
    outcomes = [child.outcome() for child in [Child(crash_jobs.create, database.url, wanted) for _ in range(4)]]
    assert {outcome.error for outcome in outcomes} == {None}
    corpus = open_corpus(database, wanted)
    assert corpus.generation == "prices"
    assert audit(corpus).violations == []


@pytest.mark.parametrize(("old", "new"), [("s3://b/p/", "s3://b/p"), ("s3://b/", "s3://b"), ("file:///a/b/", "/a/b")])
def test_two_spellings_of_a_source_are_one(old: str, new: str) -> None:
    assert canonical_url(old) == canonical_url(new) == new


def test_an_invalid_name_is_refused(database: Database, settings: CorpusSettings) -> None:
    with pytest.raises(ConfigurationError):
        open_corpus(database, replace(settings, generation="Not A Name"))
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
