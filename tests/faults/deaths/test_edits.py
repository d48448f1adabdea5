"""An edit of a large document may die, meet another writer or be fenced: readers see the old text or the new one."""

from __future__ import annotations

import pytest

from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.maintenance.compaction import compact
from ingest_pipeline.types import TextPiece
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.meanwhile import once_at
from tests.support.crash.places import LARGE_EDIT, places
from tests.support.world import World, paragraphs, passages_of

KEY = "large.txt"
DECISIVE = [
    Place(Boundary.FRAGMENT_WRITTEN, "after", 2),
    Place(Boundary.FRAGMENT_RECORDED, "after", 2),
    Place(Boundary.ROWS_REMOVED, "after"),
    Place(Boundary.LANCE_COMMIT, "after"),
    Place(Boundary.MANIFEST_INSTALLED, "before"),
]
"""The deaths that differ from those of an ingest that replaces all rows."""
BEFORE = paragraphs("large", 220)
AFTER = paragraphs("large", 40) + "\n\nOne more sentence.\n\n" + BEFORE[len(paragraphs("large", 41)) :]


@pytest.fixture
def library(world: World) -> World:
    library = World(world.database, world.settings.replace(chunk_size=4000), world.embeddings)
    library.put(KEY, BEFORE)
    library.put("small.txt", paragraphs("small", 80))
    library.ingest()
    library.put(KEY, AFTER)
    return library


def places_of(world: World, text: str) -> list[tuple[int, int, int]]:
    chunks = world.context.chunker.chunks([TextPiece(text)], markdown=False)
    return [(chunk.ordinal, chunk.start, chunk.end) for chunk in chunks]


def seen(world: World) -> list[tuple[int, int, int]]:
    """What readers of the table see at head; the audit compares it with the catalog."""
    names = ["ordinal", "start_offset", "end_offset"]
    rows = world.corpus.table.rows(world.head, names, f"document = '{KEY}'").to_pylist()
    return sorted((row["ordinal"], row["start_offset"], row["end_offset"]) for row in rows)


def rows_written(world: World) -> int:
    with world.database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM ingest_pipeline.chunk c JOIN ingest_pipeline.latest_document d "
            "ON d.saga = c.saga AND d.key = c.document WHERE d.generation = %s AND d.key = %s",
            (world.corpus.generation, KEY),
        ).fetchone()
    assert row is not None
    return int(row["n"])


def check_death(library: World, place: Place) -> None:
    before, after = places_of(library, BEFORE), places_of(library, AFTER)
    outcome = Child(crash_jobs.ingest, library.address, kill_at=place).outcome()
    assert outcome.ours
    assert seen(library) in (before, after)
    assert outcome.killed or seen(library) == after
    library.check()
    library.recover()
    assert seen(library) in (before, after)
    library.check_nothing_left()
    library.ingest()
    assert seen(library) == after
    assert rows_written(library) < len(after) / 2
    library.check_nothing_left()


@pytest.mark.promise("sigkill", "edits-stay-local")
@pytest.mark.parametrize("place", DECISIVE, ids=str)
def test_an_edit_of_a_large_document_may_die_at_what_is_its_own(library: World, place: Place) -> None:
    check_death(library, place)


@pytest.mark.promise("sigkill", "edits-stay-local")
@pytest.mark.soak
@pytest.mark.parametrize("place", places(LARGE_EDIT), ids=str)
def test_an_edit_of_a_large_document_may_die_anywhere(library: World, place: Place) -> None:
    check_death(library, place)


def test_an_edit_of_a_large_document_passes_these_boundaries(library: World) -> None:
    passed = passages_of(library.ingest)
    assert {name for name, _ in passed} == set(LARGE_EDIT)
    assert all(count <= LARGE_EDIT[name] for (name, _), count in passed.items()), passed
    assert rows_written(library) < len(seen(library)) / 2


@pytest.mark.promise("edits-stay-local")
def test_an_edit_that_meets_another_edit_is_planned_again(library: World) -> None:
    newer = AFTER + "\n\nAnd a last one."

    def edit_again() -> None:
        library.put(KEY, newer)
        library.ingest([KEY])

    with once_at((Boundary.PREPARED, "before"), edit_again):
        library.ingest([KEY])
    assert seen(library) == places_of(library, newer)
    library.check_nothing_left()


@pytest.mark.promise("edits-stay-local")
def test_a_stopped_edit_that_was_taken_for_dead_publishes_nothing(library: World) -> None:
    newer = AFTER + "\n\nAnd a last one."
    writer = Child(crash_jobs.ingest, library.address, stop_at=Place(Boundary.PREPARED, "after"))
    assert writer.wait_until_stopped()
    library.recover()
    library.sweep()
    library.put(KEY, newer)
    library.ingest()
    writer.resume()
    assert writer.outcome().ours
    assert seen(library) == places_of(library, newer)
    library.recover()
    library.check_nothing_left()


@pytest.mark.promise("edits-stay-local")
def test_rows_that_a_compaction_moves_under_an_edit_are_planned_again(library: World) -> None:
    def move_rows() -> None:
        library.remove("small.txt")
        library.ingest(["small.txt"])
        assert compact(library.corpus).groups == 1

    with once_at((Boundary.PREPARED, "before"), move_rows):
        library.ingest([KEY])
    assert seen(library) == places_of(library, AFTER)
    library.check()
