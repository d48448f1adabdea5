"""Rolling back: both stores as they were, nothing embedded, and nothing undone that the user did not name."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.errors import AuditError, ConflictError, RemovalsWithheldError, RollbackRefusedError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import (
    documents_on_hold,
    release_holds,
)
from ingest_pipeline.partitioning import FILE
from ingest_pipeline.planning.backoff import clear_resolved
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import history
from ingest_pipeline.saga.rollback import plan_rollback, rollback
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("rollbacks")

FIRST = {"a.txt": paragraphs("alpha", 3), "b.txt": paragraphs("beta", 2), "same.txt": paragraphs("same", 1)}
EDITED = paragraphs("edited", 2)


@pytest.fixture
def edited(world: World) -> World:
    """Version 2 has a, b and same; version 3 has another a, no b, a new c, and same as it was."""
    for key, text in FIRST.items():
        world.put(key, text)
    world.ingest()
    world.put("a.txt", EDITED)
    world.put("c.txt", paragraphs("gamma", 2))
    world.remove("b.txt")
    world.ingest()
    return world


def rows_at(world: World, version: int) -> dict[str, tuple[str, list[float]]]:
    """Text and vector of each chunk."""
    rows = world.corpus.table.rows(version, ["id", "text", "vector"]).to_pylist()
    return {row["id"]: (row["text"], row["vector"]) for row in rows}


def held(world: World) -> list[str]:
    return [hold.key for hold in documents_on_hold(world.corpus)]


def test_the_whole_corpus_is_as_it_was_in_both_stores_at_no_cost(edited: World) -> None:
    embedded = edited.embeddings.embedded
    (done,) = edited.roll_back(2)
    assert edited.head == done.version == 4
    assert rows_at(edited, 4) == rows_at(edited, 2) != rows_at(edited, 3)
    for key in FIRST:
        then, now = edited.chunks(key, 2), edited.chunks(key, 4)
        assert [replace(chunk, saga=done.saga) for chunk in then if key != "same.txt"] == [
            chunk for chunk in now if key != "same.txt"
        ]
    assert edited.embeddings.embedded == embedded
    edited.check_nothing_left()


def test_only_what_differs_is_written(edited: World) -> None:
    (done,) = edited.roll_back(2)
    assert {change.key: change.change for change in done.changes} == {
        "a.txt": "replace",
        "b.txt": "return",
        "c.txt": "remove",
    }
    assert edited.chunks("same.txt")[0].saga == edited.chunks("same.txt", 2)[0].saga


def test_a_single_document_goes_back_and_the_others_stay(edited: World) -> None:
    edited.roll_back(2, "a.txt")
    assert edited.text_at("a.txt") == edited.text_at("a.txt", 2)
    assert set(edited.texts()) == {"a.txt", "c.txt", "same.txt"}
    edited.check_nothing_left()


def test_a_document_may_be_named_by_its_partition(world: World) -> None:
    world.put("a,b.txt", FIRST["a.txt"])
    world.ingest()
    world.put("a,b.txt", EDITED)
    world.ingest()
    (done,) = world.roll_back(2, FILE.partition_of("a,b.txt"))
    assert [change.key for change in done.changes] == ["a,b.txt"]


def test_readers_at_earlier_heads_see_the_same(edited: World) -> None:
    before = {version: (rows_at(edited, version), edited.chunks("a.txt", version)) for version in (2, 3)}
    edited.roll_back(2)
    assert {version: (rows_at(edited, version), edited.chunks("a.txt", version)) for version in (2, 3)} == before


def test_rolling_back_again_changes_nothing(edited: World) -> None:
    edited.roll_back(2)
    head = edited.head
    assert edited.roll_back(2) == []
    assert edited.head == head


def test_a_rollback_can_be_rolled_back(edited: World) -> None:
    edited.roll_back(2)
    edited.roll_back(3)
    assert rows_at(edited, 5) == rows_at(edited, 3)
    assert held(edited) == [], "the corpus is as the source has it"
    edited.check_nothing_left()


def test_a_rollback_may_remove_every_document(edited: World) -> None:
    edited.roll_back(1)
    assert edited.texts() == {}
    assert set(held(edited)) == {"a.txt", "c.txt", "same.txt"}
    edited.check_nothing_left()
    edited.roll_back(2)
    assert rows_at(edited, edited.head) == rows_at(edited, 2)
    edited.check_nothing_left()


def test_a_rolled_back_document_is_not_ingested_again(edited: World) -> None:
    edited.roll_back(2)
    page = Planner(edited.context).page()
    assert page.plans == []
    assert {plan.key for plan in page.on_hold} == {"a.txt", "b.txt", "c.txt"}
    head = edited.head
    assert edited.ingest().publications == []
    assert edited.head == head


@pytest.mark.parametrize("key", ["a.txt", "b.txt", "c.txt"])
def test_a_hold_ends_when_the_bytes_change(edited: World, key: str) -> None:
    edited.roll_back(2)
    edited.put(key, paragraphs("later", 2))
    edited.ingest()
    assert edited.text_at(key).startswith("later")
    assert key not in held(edited)
    assert len(held(edited)) == 2


def test_a_hold_ends_when_the_recipe_changes(edited: World) -> None:
    edited.roll_back(2)
    other = World(edited.database, edited.settings.replace(chunk_size=500), edited.embeddings)
    assert {plan.key for plan in Planner(other.context).plans()} >= {"a.txt", "b.txt", "c.txt"}


def test_a_document_of_an_older_recipe_is_on_hold_too(edited: World) -> None:
    """The bytes are the source's own; what was rolled back is the way they were cut."""
    recut = World(edited.database, edited.settings.replace(chunk_size=500), edited.embeddings)
    recut.ingest()
    recut.roll_back(3)
    assert Planner(recut.context).plans() == []
    assert rows_at(recut, recut.head) == rows_at(recut, 3)


def test_a_hold_ends_when_the_user_retries(edited: World) -> None:
    edited.roll_back(2)
    assert release_holds(edited.corpus, ["a.txt"]) == ["a.txt"]
    edited.ingest()
    assert edited.text_at("a.txt") == edited.text_at("a.txt", 3)
    assert set(held(edited)) == {"b.txt", "c.txt"}


def test_a_touched_file_stays_on_hold(edited: World) -> None:
    edited.roll_back(2, "a.txt")
    os.utime(edited.put("a.txt", EDITED), ns=(1, 1))
    head = edited.head
    (document,) = edited.ingest().on_hold
    assert (document.key, edited.head) == ("a.txt", head)
    assert Planner(edited.context).plans() == []


def test_a_file_changed_back_to_its_published_content_ends_the_hold(edited: World) -> None:
    edited.roll_back(2, "a.txt")
    edited.put("a.txt", FIRST["a.txt"])
    assert edited.ingest().publications == []
    clear_resolved(edited.context, Planner(edited.context).page())
    assert held(edited) == []


def test_rolling_back_further_updates_the_hold(edited: World) -> None:
    edited.put("a.txt", paragraphs("newest", 2))
    edited.ingest()
    edited.roll_back(3, "a.txt")
    edited.roll_back(2, "a.txt")
    assert Planner(edited.context).plans() == []
    edited.roll_back(4, "a.txt")
    assert held(edited) == []


def test_a_large_document_streams_in_several_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest_pipeline.preparation.writing.write_stage._ROWS_PER_FILE", 256)
    monkeypatch.setattr("ingest_pipeline.saga.rollback._ROWS_PER_FILE", 256)
    world.put("large.txt", paragraphs("large", 600))
    world.put("a.txt", FIRST["a.txt"])
    world.ingest()
    assert len(world.corpus.table.fragments(world.head)) > 2
    world.put("large.txt", EDITED)
    world.ingest()
    world.roll_back(2)
    assert rows_at(world, world.head) == rows_at(world, 2)
    assert len(world.corpus.table.fragments(world.head)) > 2
    world.check_nothing_left()
    world.put("large.txt", paragraphs("last", 1))
    world.ingest()
    world.check_nothing_left()


def test_a_dry_run_names_the_changes_and_makes_none(edited: World) -> None:
    head = edited.head
    assert [change.key for change in plan_rollback(edited.corpus, 2)] == ["a.txt", "b.txt", "c.txt"]
    assert edited.head == edited.corpus.table.latest_version() == head


def test_a_version_that_was_undone_is_no_publication(edited: World) -> None:
    with pytest.raises(RollbackRefusedError, match="Version 9 of corpus 'docs' is no publication"):
        edited.roll_back(9)


def test_a_document_that_never_existed_is_refused(edited: World) -> None:
    with pytest.raises(RollbackRefusedError, match=r"never had a document 'ghost\.txt'"):
        edited.roll_back(2, "a.txt", "ghost.txt")
    assert edited.head == 3


def test_a_version_that_is_not_retained_is_refused_with_the_oldest_retained_one(edited: World) -> None:
    edited.corpus.table.remove_versions([1, 2])
    with pytest.raises(RollbackRefusedError, match=r"Version 2 .* the oldest retained version is 3"):
        edited.roll_back(2)
    assert edited.roll_back(3) == []


def test_a_document_published_meanwhile_is_not_rolled_back_over(edited: World) -> None:
    def publish_another(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "after"):
            failpoints.install(None)
            edited.put("a.txt", paragraphs("meanwhile", 1))
            edited.ingest()

    failpoints.install(publish_another)
    try:
        with pytest.raises(ConflictError):
            edited.roll_back(2)
    finally:
        failpoints.install(None)
    assert edited.text_at("a.txt").startswith("meanwhile")
    assert held(edited) == []
    edited.check_nothing_left()


def test_an_ingest_in_progress_does_not_undo_a_rollback(edited: World) -> None:
    """It planned before, meets the conflict, plans again, and finds the document held."""
    edited.put("a.txt", paragraphs("newer", 2))

    def publish_and_roll_back(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "before"):
            failpoints.install(None)
            edited.ingest()
            edited.roll_back(3, "a.txt")

    failpoints.install(publish_and_roll_back)
    try:
        summary = edited.ingest()
    finally:
        failpoints.install(None)
    assert (summary.publications, [plan.key for plan in summary.on_hold]) == ([], ["a.txt"])
    assert edited.text_at("a.txt") == edited.text_at("a.txt", 3)


def test_rows_that_the_table_lost_stop_the_rollback_before_anything_changes(edited: World) -> None:
    with edited.database.transaction() as connection:
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE document = 'b.txt' AND ordinal = 1")
    with pytest.raises(AuditError, match=r"b\.txt"):
        edited.roll_back(2, "b.txt")
    assert edited.head == 3
    edited.check_nothing_left()


def test_moved_rows_are_found(edited: World) -> None:
    """A compaction leaves other fragment numbers than the catalog of then has."""
    with edited.database.transaction() as connection:
        connection.execute("UPDATE ingest_pipeline.document SET fragments = '{77}' WHERE key IN ('a.txt', 'b.txt')")
    edited.roll_back(2)
    assert rows_at(edited, edited.head) == rows_at(edited, 2)


def test_history_lists_publications_and_the_target_of_a_rollback(edited: World) -> None:
    edited.roll_back(2)
    with edited.database.transaction() as connection:
        rows = history.publication_history(connection, edited.corpus.generation, 10)
    assert [(row.version, row.kind, row.documents, row.removed, row.target_version) for row in rows] == [
        (4, "rollback", 2, 1, 2),
        (3, "ingest", 2, 1, None),
        (2, "ingest", 3, 0, None),
        (1, "create", 0, 0, None),
    ]


def test_a_rollback_while_a_sensor_compares_stays_on_hold(edited: World) -> None:
    page = Planner(edited.context).page()
    edited.roll_back(2, "a.txt")
    clear_resolved(edited.context, page)
    assert held(edited) == ["a.txt"]
    assert edited.ingest().publications == []


def test_a_rollback_that_would_remove_most_documents_has_to_be_confirmed(world: World) -> None:
    world.put("a.txt", "Alpha.")
    world.ingest()
    for number in range(12):
        world.put(f"{number}.txt", f"Text {number}.")
    world.ingest()
    recipe = world.settings.recipe
    with pytest.raises(RemovalsWithheldError, match=r"would remove 12 of its 13 documents; nothing .* --confirm"):
        rollback(world.corpus, 2, recipe=recipe)
    assert (world.head, held(world)) == (3, [])
    rollback(world.corpus, 2, [f"{number}.txt" for number in range(6)], recipe=recipe)
    rollback(world.corpus, 2, recipe=recipe, confirm_removals=True)
    assert set(world.texts()) == {"a.txt"}
    with pytest.raises(RemovalsWithheldError, match="1 of its 1"):
        rollback(world.corpus, 1, recipe=recipe)
