"""An empty file is a document without chunks: published like any other, and its old rows go."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest

from ingest_pipeline.errors import TooRecentError
from ingest_pipeline.ingestion.estimate import count
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import documents, reports
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.migrating import address_after, migrate, world_after
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("empty-files")


def document(world: World, key: str, version: int | None = None) -> DocumentRow:
    with world.database.transaction() as connection:
        [row] = documents.documents_at(connection, world.corpus.generation, version or world.head, [key])
    return row


@pytest.fixture
def emptied(world: World) -> World:
    """Version 2 has two documents with text; at head, one of them is empty."""
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.put("a.txt", "")
    world.embeddings.reset_counters()
    world.ingest()
    return world


@pytest.mark.parametrize("text", ["", " \r\n\t\n", "\ufeff", " \n" * 100_000], ids=["none", "spaces", "mark", "many"])
@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_a_file_that_became_empty_loses_its_rows_and_stays_a_document(world: World, name: str, text: str) -> None:
    world.put(name, f"<p>{paragraphs('alpha', 3)}</p>")
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.put(name, text)
    summary = world.ingest()
    assert (summary.failed, len(summary.publications)) == ({}, 1)
    assert set(world.texts()) == {"b.txt"}
    row = document(world, name)
    assert (row.chunk_count, row.fragments, row.size) == (0, [], len(text.encode()))
    assert Planner(world.context).plans() == []
    world.check_nothing_left()


@pytest.mark.parametrize("name", ["a.txt", "a.pdf", "a.docx", "a.html"])
def test_a_corpus_of_nothing_but_empty_files_agrees_and_nothing_is_done_again(world: World, name: str) -> None:
    world.put(name, "")
    world.put("b.txt", "\n")
    assert len(world.ingest().publications) == 1
    report = world.audit()
    assert (report.documents, report.chunks, report.violations) == (2, 0, [])
    before = world.head, world.corpus.table.all_files()
    assert world.ingest().publications == []
    assert (world.head, world.corpus.table.all_files()) == before
    assert world.embeddings.requests == 0
    world.check_nothing_left()


def test_empty_files_share_a_publication_with_others_in_any_order(world: World) -> None:
    for number in range(6):
        world.put(f"{number}.txt", "" if number % 2 == 0 else paragraphs(f"topic {number}", 1))
    [publication] = world.ingest().publications
    assert {prepared.plan.key for prepared in publication.documents} == {f"{number}.txt" for number in range(6)}
    assert [bool(document(world, f"{number}.txt").fragments) for number in range(6)] == [False, True] * 3
    assert set(world.texts()) == {"1.txt", "3.txt", "5.txt"}
    world.check_nothing_left()


def test_a_touched_empty_file_is_not_published_again_and_text_in_it_is(emptied: World) -> None:
    path = emptied.put("a.txt", "")
    os.utime(path, (1, 1))
    summary = emptied.ingest()
    assert ([plan.key for plan in summary.unchanged], summary.publications) == (["a.txt"], [])
    emptied.put("a.txt", paragraphs("alpha", 3))
    emptied.ingest()
    assert emptied.embeddings.embedded == 0, "its vectors are in an earlier version"
    assert document(emptied, "a.txt").chunk_count > 0
    emptied.check_nothing_left()


def test_a_rollback_to_an_empty_document_and_back(emptied: World) -> None:
    empty = emptied.head
    emptied.roll_back(2)
    assert set(emptied.texts()) == {"a.txt", "b.txt"}
    emptied.roll_back(empty, "a.txt")
    assert document(emptied, "a.txt").chunk_count == 0
    assert set(emptied.texts()) == {"b.txt"}
    emptied.check_nothing_left()


def test_an_empty_document_survives_reembedding_and_maintenance(emptied: World) -> None:
    crash_jobs.maintain(emptied.address, 1)
    migrate(emptied.database, address_after(emptied))
    moved = world_after(emptied)
    assert moved.corpus.generation != emptied.corpus.generation
    assert document(moved, "a.txt").chunk_count == 0
    moved.check_nothing_left()


def test_progress_counts_an_empty_document_as_prepared(emptied: World) -> None:
    with emptied.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.saga SET run_id = 'run' WHERE kind = 'ingest'")
        progress = reports.run_progress(connection, "run")
    assert (progress.documents, progress.prepared) == (3, 3)


def test_a_plan_expects_no_chunk_of_an_empty_file(world: World) -> None:
    world.put("a.txt", "\n\n")
    foreseen = count(world.context, Planner(world.context).plans())
    assert (foreseen.documents, foreseen.chunks, foreseen.tokens) == (1, 0, 0)


def test_an_empty_file_that_may_still_be_written_keeps_its_rows(world: World) -> None:
    """Whoever writes a file anew often empties it first."""
    patient = World(world.database, world.settings.replace(min_age_seconds=3600), world.embeddings)
    patient.put("a.txt", paragraphs("alpha", 3))
    patient.put("c.txt", paragraphs("gamma", 1))
    patient.ingest()
    text = patient.text_at("a.txt")
    path = patient.put("a.txt", "")
    patient.put("b.txt", paragraphs("beta", 1))
    summary = patient.ingest()
    assert summary.failed == {}
    [(plan, error)] = summary.too_recent.values()
    assert (plan.key, type(error)) == ("a.txt", TooRecentError)
    assert patient.text_at("a.txt") == text
    assert patient.text_at("b.txt"), "the others are published"
    with patient.database.transaction() as connection:
        assert connection.execute("SELECT FROM ingest_pipeline.failure").fetchall() == []
    old = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(path, (old, old))
    assert len(patient.ingest().publications) == 1
    assert document(patient, "a.txt").chunk_count == 0
    patient.check_nothing_left()
