"""Documents that differ by recipe alone: when that has to be confirmed, and what goes on meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest_pipeline.ingestion.recipe_guard import RecipeGuard, is_suspicious
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog.holds import Hold
from ingest_pipeline.postgres.catalog.recipes import read_recipes
from tests.support.servers.embedding_server import TEST_MODEL
from tests.support.world import World, paragraphs


def with_chunk_size(world: World, size: int) -> World:
    """The same corpus under other settings, as another machine may have them."""
    prices = f"{TEST_MODEL} 2.50 EUR 2026-11-01"
    return World(world.database, world.settings.replace(chunk_size=size, embedding_prices=prices), world.embeddings)


def fill(world: World, count: int) -> None:
    for number in range(count):
        world.put(f"{number:02}.txt", f"Text of file {number}.")
    world.ingest()
    RecipeGuard(world.context).accept()


def recipes(world: World) -> list[object]:
    with world.database.transaction() as connection:
        return [one.parts["chunk_size"] for one in read_recipes(connection, world.corpus.generation)]


@pytest.mark.parametrize(
    ("others", "latest", "suspicious"),
    [(0, 0, False), (10, 10, False), (11, 11, True), (11, 110, False), (12, 110, True), (11, 100_000, False)],
)
def test_a_few_documents_and_a_tenth_of_many_need_no_confirmation(others: int, latest: int, suspicious: bool) -> None:
    assert is_suspicious(others, latest) == suspicious


@pytest.mark.promise("recipe-guard")
def test_a_changed_setting_withholds_documents_that_differ_by_it_alone_and_shows_the_cost(world: World) -> None:
    fill(world, 12)
    other = with_chunk_size(world, 500)
    world.put("00.txt", "Another text of file 0.")
    world.put("new.txt", "A new file.")
    world.remove("01.txt")
    guard = RecipeGuard(other.context)
    said = str(guard.error)
    assert "INGEST_CHUNK_SIZE (chunk_size) from 1000 to 500" in said
    assert "12 of 12 documents" in said
    assert "EUR" in said
    assert "--confirm-recipe" in said
    due, withheld = guard.split(Planner(other.context).plans())
    assert sorted(plan.key for plan in due) == ["00.txt", "01.txt", "new.txt"]
    assert [plan.key for plan in withheld] == [f"{number:02}.txt" for number in range(2, 12)]
    guard.accept()
    assert recipes(world) == [1000], "what has to be confirmed is not put in force"


def test_a_confirmation_remains_valid_after_a_run_that_died(world: World) -> None:
    fill(world, 12)
    other = with_chunk_size(world, 500)
    RecipeGuard(other.context, confirmed=True).accept()
    other.ingest(["00.txt"])
    assert RecipeGuard(other.context).error is None
    assert recipes(world) == [1000, 500]


@pytest.mark.promise("recipe-guard")
def test_a_return_to_an_earlier_recipe_needs_a_confirmation_for_any_number_of_documents(world: World) -> None:
    fill(world, 3)
    other = with_chunk_size(world, 500)
    guard = RecipeGuard(other.context)
    assert guard.error is None, "three documents need no confirmation"
    guard.accept()
    other.ingest()
    back = RecipeGuard(world.context)
    assert "go back to an earlier recipe" in str(back.error)
    assert "INGEST_CHUNK_SIZE (chunk_size) from 500 to 1000" in str(back.error)
    assert back.split(Planner(world.context).plans())[0] == []
    back.accept()
    assert recipes(world) == [1000, 500]
    RecipeGuard(world.context, confirmed=True).accept()
    assert recipes(world) == [500, 1000]
    world.ingest()
    assert "go back" in str(RecipeGuard(other.context).error), "now it is the other machine that is refused"


def test_a_few_named_documents_need_no_confirmation_and_many_do(world: World) -> None:
    fill(world, 30)
    other = with_chunk_size(world, 500)
    guard, plans = RecipeGuard(other.context), Planner(other.context).plans()
    assert guard.split(plans[:3], are_named=True) == (plans[:3], [])
    assert guard.split(plans, are_named=True) == ([], plans)
    assert guard.split(plans[:3]) == ([], plans[:3])


def test_a_file_that_was_touched_differs_by_recipe_alone_once_it_was_read(world: World) -> None:
    fill(world, 12)
    other = with_chunk_size(world, 500)
    os.utime(Path(world.settings.source) / "03.txt", (1_000_000_000, 1_000_000_000))
    guard = RecipeGuard(other.context)
    assert [plan.key for plan in guard.split(Planner(other.context).plans())[0]] == ["03.txt"]
    assert guard.split(Planner(other.context).plans(), reads=True)[0] == []
    assert guard.split(Planner(other.context).plans())[0] == [], "its new ETag was noted"


@pytest.mark.promise("recipe-guard")
def test_a_withheld_recipe_does_not_end_holds(world: World) -> None:
    fill(world, 12)
    before = world.head
    world.put("00.txt", "Bad text.")
    world.ingest()
    world.roll_back(before, "00.txt")
    assert Planner(world.context).plans() == []
    other = with_chunk_size(world, 500)
    due, withheld = RecipeGuard(other.context).split(Planner(other.context).plans())
    assert (due, len(withheld)) == ([], 12)
    assert isinstance(withheld[0].hold, Hold)
    assert world.text_at("00.txt") == "Text of file 0."


def test_a_corpus_without_a_recorded_recipe_is_guarded_by_the_recipes_of_its_documents(world: World) -> None:
    for number in range(12):
        world.put(f"{number:02}.txt", paragraphs(f"topic{number}", 1))
    world.ingest()
    assert recipes(world) == []
    assert RecipeGuard(world.context).error is None
    assert "12 of 12 documents" in str(RecipeGuard(with_chunk_size(world, 500).context).error)
