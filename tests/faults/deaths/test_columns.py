"""A change of columns may die, meet another writer or be undone: both stores agree on the values, old or new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.meanwhile import once_at
from tests.support.crash.places import (
    COLUMN_ADDITION,
    COLUMN_CHANGE,
    COLUMN_WIDENING,
    ENRICHER_CHANGE,
    shared_places,
)
from tests.support.world import World, paragraphs, passages_of

COLUMNS = {"readers": "list<string>"}


def declared(world: World, columns: dict[str, str]) -> World:
    return World(world.database, world.settings.replace(columns=columns), world.embeddings)


def put(world: World, key: str, *readers: str) -> None:
    world.put(f"{key}.metadata.json", json.dumps({"readers": readers}))


def readers(world: World) -> dict[str, Any]:
    """What readers of the table see at head; the audit compares it with the catalog."""
    head = world.head
    if "readers" not in world.corpus.table.columns(head):
        return {}
    rows = world.corpus.table.rows(head, ["document", "readers"]).to_pylist()
    return {row["document"]: row["readers"] for row in rows}


@pytest.fixture
def library(world: World) -> World:
    library = declared(world, COLUMNS)
    for key in ("a.txt", "b.txt"):
        library.put(key, paragraphs(key, 2))
        put(library, key, "ann", "bob")
    library.ingest()
    return library


BEFORE = {"a.txt": ["ann", "bob"], "b.txt": ["ann", "bob"]}
AFTER = {"a.txt": ["bob"], "b.txt": ["ann", "bob"]}


@pytest.mark.promise("columns")
@pytest.mark.parametrize("place", shared_places(COLUMN_CHANGE), ids=str)
def test_a_change_of_columns_may_die_anywhere(library: World, place: Place) -> None:
    embedded = library.embeddings.embedded
    put(library, "a.txt", "bob")
    outcome = Child(crash_jobs.ingest, library.address, kill_at=place).outcome()
    assert outcome.ours
    assert readers(library) in (BEFORE, AFTER)
    assert outcome.killed or readers(library) == AFTER
    library.check()
    library.recover()
    assert readers(library) in (BEFORE, AFTER)
    library.check_nothing_left()
    library.ingest()
    assert readers(library) == AFTER
    library.check_nothing_left()
    assert library.embeddings.embedded == embedded


@pytest.mark.promise("columns")
@pytest.mark.parametrize("place", shared_places(COLUMN_ADDITION), ids=str)
def test_an_addition_of_a_column_may_die_anywhere(world: World, place: Place) -> None:
    plain = declared(world, {})
    plain.put("a.txt", paragraphs("a", 2))
    plain.ingest()
    embedded = plain.embeddings.embedded
    put(plain, "a.txt", "ann")
    library = declared(world, COLUMNS)
    outcome = Child(crash_jobs.ingest, library.address, kill_at=place).outcome()
    assert outcome.ours
    assert readers(plain) in ({}, {"a.txt": None}, {"a.txt": ["ann"]})
    plain.check()
    plain.recover()
    plain.check_nothing_left()
    library.ingest()
    assert readers(library) == {"a.txt": ["ann"]}
    library.check_nothing_left()
    assert library.embeddings.embedded == embedded


WIDENED = {"year": "float", "rate": "float", "tags": "list<string>"}


@pytest.fixture
def dated(world: World) -> World:
    dated = declared(world, {"year": "int", "rate": "int", "tags": "list<string>"})
    dated.put("a.txt", paragraphs("a", 2))
    dated.put("a.txt.metadata.json", json.dumps({"year": 2000, "tags": ["x"]}))
    dated.ingest()
    return dated


def dates(world: World) -> list[Any]:
    """What a reader of the table finds at head in the columns that change and in the one that does not."""
    rows = world.corpus.table.rows(world.head, ["year", "rate", "tags"]).to_pylist()
    return [list(row.values()) for row in rows]


@pytest.mark.promise("columns")
@pytest.mark.parametrize("place", shared_places(COLUMN_WIDENING), ids=str)
def test_a_change_of_a_type_may_die_anywhere(dated: World, place: Place) -> None:
    embedded = dated.embeddings.embedded
    wider = declared(dated, WIDENED)
    outcome = Child(crash_jobs.ingest, wider.address, kill_at=place).outcome()
    assert outcome.ours
    assert dates(dated)[0] == [2000, None, ["x"]]
    dated.check()
    dated.recover()
    dated.check_nothing_left()
    wider.ingest()
    assert dates(wider)[0] == [2000, None, ["x"]]
    assert type(dates(wider)[0][0]) is float
    wider.check_nothing_left()
    assert wider.embeddings.embedded == embedded


@pytest.mark.promise("columns")
def test_a_reader_at_head_has_the_column_at_every_moment_of_a_change_of_its_type(dated: World) -> None:
    corpus, seen, reading = dated.corpus, list[type](), list[bool]()

    def read(_: Boundary, __: str) -> None:
        if reading:
            return  # the reader's own COMMIT
        reading.append(True)
        rows = corpus.table.rows(corpus.head().head_version, ["year"])["year"].to_pylist()
        assert set(rows) == {2000}
        seen.extend(map(type, rows))
        reading.clear()

    failpoints.install(read)
    try:
        declared(dated, WIDENED).ingest()
    finally:
        failpoints.install(None)
    assert set(seen) == {int, float}
    dated.check_nothing_left()


def test_the_places_of_a_change_of_a_type_are_all_there_are(dated: World) -> None:
    passed = passages_of(declared(dated, WIDENED).ingest)
    assert {name for name, _ in passed} == set(COLUMN_WIDENING)
    assert all(count <= COLUMN_WIDENING[name] for (name, _), count in passed.items())


def test_the_places_of_a_change_of_columns_are_all_there_are(library: World) -> None:
    put(library, "a.txt", "bob")
    passed = passages_of(library.ingest)
    assert {name for name, _ in passed} == set(COLUMN_CHANGE)
    assert all(count <= COLUMN_CHANGE[name] for (name, _), count in passed.items())


def enriched(world: World, calls: Path, number: int) -> World:
    """A corpus whose enricher of chunks is billed, and has another fingerprint for each number."""
    arguments = {"calls": str(calls), "fingerprint": f"topics-{number}", "prefix": f"{number} "}
    enricher = {"class": "tests.support.user_code.Topics", "arguments": arguments}
    settings = world.settings.replace(chunk_columns={"topic": "string"}, enricher=enricher)
    return World(world.database, settings, world.embeddings)


@pytest.fixture
def topical(world: World, tmp_path: Path) -> World:
    topical = enriched(world, tmp_path / "calls", 1)
    topical.put("a.txt", "some words")
    topical.ingest()
    return topical


def topics(world: World) -> list[str]:
    """The topics that readers of the table see at head; the audit compares them with the catalog."""
    return world.corpus.table.rows(world.head, ["topic"])["topic"].to_pylist()


@pytest.mark.promise("chunk-columns")
@pytest.mark.parametrize("place", shared_places(ENRICHER_CHANGE), ids=str)
def test_a_change_of_an_enricher_may_die_anywhere(topical: World, tmp_path: Path, place: Place) -> None:
    embedded, vectors = topical.embeddings.embedded, topical.corpus.table.rows(topical.head, ["id", "vector"])
    other = enriched(topical, tmp_path / "calls", 2)
    assert other.corpus
    outcome = Child(crash_jobs.ingest, other.address, kill_at=place).outcome()
    assert outcome.ours
    assert topics(other) in (["1 some"], ["2 some"])
    other.check()
    other.recover()
    other.check_nothing_left()
    other.ingest()
    assert topics(other) == ["2 some"]
    other.check_nothing_left()
    assert other.embeddings.embedded == embedded
    assert other.corpus.table.rows(other.head, ["id", "vector"]) == vectors
    assert len((tmp_path / "calls").read_text().splitlines()) <= 2 + 1, "a call that was recorded is billed once"


def test_the_places_of_a_change_of_an_enricher_are_all_there_are(topical: World, tmp_path: Path) -> None:
    passed = passages_of(enriched(topical, tmp_path / "calls", 2).ingest)
    assert {name for name, _ in passed} == set(ENRICHER_CHANGE)
    assert all(count <= ENRICHER_CHANGE[name] for (name, _), count in passed.items())


def meanwhile(library: World, at: Boundary, work: Callable[[], object]) -> None:
    """Ingest, and do something once, when the ingest passes a boundary."""
    with once_at((at, "before"), work):
        library.ingest()


@pytest.mark.promise("columns")
def test_two_changes_of_one_fragment_at_once_lose_neither(library: World) -> None:
    other = declared(library, COLUMNS)

    def change_b() -> None:
        put(library, "b.txt", "cat")
        other.ingest(["b.txt"])

    put(library, "a.txt", "bob")
    meanwhile(library, Boundary.PREPARED, change_b)
    assert readers(library) == {"a.txt": ["bob"], "b.txt": ["cat"]}
    library.check_nothing_left()


def test_a_change_of_columns_outlasts_a_removal_from_its_fragment(library: World) -> None:
    other = declared(library, COLUMNS)

    def remove_b() -> None:
        library.remove("b.txt")
        other.ingest(["b.txt"])

    put(library, "a.txt", "bob")
    meanwhile(library, Boundary.PREPARED, remove_b)
    assert readers(library) == {"a.txt": ["bob"]}
    library.check_nothing_left()


def test_a_document_that_is_edited_meanwhile_has_the_new_text_and_the_new_columns(library: World) -> None:
    other = declared(library, COLUMNS)

    def edit_a() -> None:
        library.put("a.txt", paragraphs("edited", 3))
        other.ingest(["a.txt"])

    put(library, "a.txt", "bob")
    meanwhile(library, Boundary.PREPARED, edit_a)
    assert readers(library)["a.txt"] == ["bob"]
    assert "edited" in library.text_at("a.txt")
    library.check_nothing_left()
