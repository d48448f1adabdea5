"""The planner: source and catalog compared page by page, and by name."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ingest_pipeline.errors import SourceUnavailableError
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.planning import source_comparison
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.source_comparison import Limits, Page, Planner
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import SourceObject
from tests.support.world import World

_IDLE_SINCE = """
SELECT state_change FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'
"""
_NAMES = ["a", "b/1", "b/2", "b-", "c", "d/e/f", "d0", "\u00e9", "\U0001f600"]


def keys_of(pages: list[Page]) -> list[str]:
    return [document.key for page in pages for document in sorted([*page.puts, *page.removals], key=lambda d: d.key)]


def contents(page: Page) -> tuple[Any, ...]:
    return page.after, page.last, page.plans, page.listed, page.latest, page.excluded_keys


def counted_listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry for each listing of a source."""
    listings: list[str] = []
    original = ObjectSource.list

    def listed(source: ObjectSource, after: str = "", *arguments: Any) -> Iterator[SourceObject]:
        listings.append(after)
        return original(source, after, *arguments)

    monkeypatch.setattr(ObjectSource, "list", listed)
    return listings


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_all_pages_together_equal_one_listing(world: World, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        world.put(f"{name}.txt", name)
    world.ingest([f"{name}.txt" for name in _NAMES[::2]])
    for name in _NAMES[::4]:
        world.remove(f"{name}.txt")
    whole = Planner(world.context).page()
    pages = list(Planner(world.context).pages(Limits(plans=size)))
    assert keys_of(pages) == keys_of([whole])
    assert sum(page.latest for page in pages) == whole.latest == 5
    assert sum(page.listed for page in pages) == whole.listed == 6
    assert len(whole.removals) == 3
    assert len(pages) > 1 or size > len(_NAMES)
    monkeypatch.setattr(source_comparison, "MAX_PAGE_DOCUMENTS", size)
    with monkeypatch.context() as patched:
        listings = counted_listings(patched)
        streamed = list(Planner(world.context).one_pass())
    assert list(map(contents, streamed)) == list(map(contents, pages))
    assert len(listings) == 1


def test_a_page_that_runs_out_of_time_is_correct_for_its_own_range(world: World) -> None:
    for name in "abc":
        world.put(f"{name}.txt", name)
    page = Planner(world.context).page(limits=Limits(seconds=0))
    assert (keys_of([page]), page.last) == (["a.txt"], "a.txt")
    assert keys_of([Planner(world.context).page("a.txt")]) == ["b.txt", "c.txt"]


def test_a_page_ends_only_at_a_key_after_which_the_source_can_continue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        world.put(f"{name}.txt", name)

    def can_follow(_: ObjectSource, key: str) -> bool:
        return key != "a.txt"

    monkeypatch.setattr(ObjectSource, "can_follow", can_follow)
    pages = list(Planner(world.context).pages(Limits(plans=1)))
    assert [page.last for page in pages] == ["b.txt", "c.txt", None]
    assert [keys_of([page]) for page in pages] == [["a.txt", "b.txt"], ["c.txt"], []]


def test_tombstones_are_not_counted_as_documents_at_head(world: World) -> None:
    for name in "abc":
        world.put(f"{name}.txt", name)
    world.ingest()
    world.remove("c.txt")
    world.ingest()
    page = Planner(world.context).page()
    assert (page.latest, page.listed, page.plans) == (2, 2, [])


def test_a_failing_listing_concludes_nothing(world: World) -> None:
    world.put("a.txt", "alpha")
    world.ingest()
    context = world.context
    Path(world.settings.source).rename(f"{world.settings.source}-away")
    for partitions in (None, ["a.txt"]):
        with pytest.raises(SourceUnavailableError):
            Planner(context).plans(partitions)


def test_excluded_objects_are_named_and_removed_from_the_corpus(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a.md", "alpha")
    world.put("b.txt", "beta")
    world.put("large.txt", "x" * 500)
    world.ingest()
    narrow = world.settings.replace(exclude=("*.md",), max_bytes=400)
    context = open_context(world.database, narrow)
    page = Planner(context).page()
    pages = list(Planner(context).pages(Limits(plans=1)))
    assert [list(page.excluded_keys) for page in pages] == [["a.md"], ["large.txt"], []]
    monkeypatch.setattr(source_comparison, "MAX_PAGE_DOCUMENTS", 1)
    assert list(map(contents, Planner(context).one_pass())) == list(map(contents, pages))
    assert page.excluded_keys == {"a.md": "excluded", "large.txt": "larger than 400 bytes"}
    assert [document.key for document in page.removals] == ["a.md", "large.txt"]
    assert page.puts == []


def test_a_too_recent_file_waits_and_is_not_treated_as_removed(world: World) -> None:
    path = world.put("a.txt", "alpha")
    world.ingest()
    path.write_text("alpha and more")
    page = Planner(world.context).page(limits=Limits(min_age_seconds=3600))
    assert (page.puts, page.removals, page.too_recent) == ([], [], ["a.txt"])
    past = time.time() - 7200
    os.utime(path, (past, past))
    assert keys_of([Planner(world.context).page(limits=Limits(min_age_seconds=3600))]) == ["a.txt"]


def test_removals_are_judged_against_the_whole_corpus(world: World) -> None:
    for number in range(30):
        world.put(f"{number:02}.txt", f"text {number}")
    world.ingest()
    for number in range(15):
        world.remove(f"{number:02}.txt")
    assert check_removals(world.context, len(Planner(world.context).page().removals)) is None
    world.remove("15.txt")
    found = check_removals(world.context, len(Planner(world.context).page().removals))
    assert found is not None
    assert "16 of 30" in str(found)


@pytest.mark.parametrize("scheme", ["folder", "folder:2", "bucket:4"])
def test_within_a_partition_only_documents_that_differ_are_read(world: World, scheme: str) -> None:
    settings = world.settings.replace(partition_by=scheme)
    world = World(world.database, settings, world.embeddings)
    for number in range(12):
        world.put(f"f/{number % 2}/{number}.txt", f"text {number}")
    world.put("top.txt", "top")
    world.ingest()
    embedded = world.embeddings.embedded
    world.put("f/1/1.txt", "another text 1")
    partition = world.context.scheme.partition_of("f/1/1.txt")
    (plan,) = Planner(world.context).plans([partition])
    assert (plan.key, plan.partition) == ("f/1/1.txt", partition)
    assert Planner(world.context).plans(["top.txt" if scheme != "bucket:4" else "9"]) == []
    world.ingest([partition])
    assert world.embeddings.embedded == embedded + 1
    assert world.audit().violations == []


def test_a_listing_may_take_longer_than_the_idle_limit_of_postgres(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres counts from the last statement, and the planner sends one again and again while it lists."""
    monkeypatch.setattr(source_comparison, "_KEEPALIVE_SECONDS", 0.0)
    for name in "abcdefgh":
        world.put(f"{name}.txt", name)
    context, listing = world.context, ObjectSource.list
    idle_since: list[datetime] = []

    def watched(source: ObjectSource, *args: Any) -> Iterator[SourceObject]:
        for obj in listing(source, *args):
            yield obj
            with world.database.transaction() as connection:
                found = connection.execute(_IDLE_SINCE).fetchall()
            idle_since.extend(row["state_change"] for row in found)

    monkeypatch.setattr(ObjectSource, "list", watched)
    assert len(Planner(context).page().puts) == 8
    assert len(set(idle_since)) == 8


def test_a_page_may_end_among_excluded_objects(world: World) -> None:
    world.put("b.txt", "beta")
    world.put("d.txt", "delta")
    world.ingest()
    for name in ("a.log", "b.txt.log", "c.log", "d.txt"):
        world.put(name, "left out")
    world.remove("b.txt")
    world.settings = world.settings.replace(exclude=("*.log",))
    context = open_context(world.database, world.settings)
    pages = list(Planner(context).pages(Limits(seconds=0)))
    assert [page.last for page in pages] == ["a.log", "b.txt", "b.txt.log", "c.log", "d.txt", None]
    assert keys_of(pages) == keys_of([Planner(context).page()]) == ["b.txt", "d.txt"]
    assert sum((page.excluded for page in pages), Counter()) == {"excluded": 3}


@pytest.mark.parametrize("scheme", ["file", "folder", "bucket:4"])
def test_pages_partitions_and_documents_find_the_same_differences(world: World, scheme: str) -> None:
    settings = world.settings.replace(partition_by=scheme, exclude=("*.log",))
    world = World(world.database, settings, world.embeddings)
    for name in ("f/gone.txt", "f/kept.txt", "g/edited.txt", "g/excluded.txt"):
        world.put(name, name)
    world.ingest()
    world.remove("f/gone.txt")
    world.put("g/edited.txt", "edited, and longer than before")
    world.put("g/new.txt", "new")
    world.put("g/new.log", "excluded")
    world.settings = settings.replace(exclude=("*.log", "g/excluded.txt"))
    context = open_context(world.database, world.settings)
    whole = Planner(context).page()
    keys = ["f/gone.txt", "f/kept.txt", "g/edited.txt", "g/excluded.txt", "g/new.txt", "g/new.log"]
    partitions = sorted({context.scheme.partition_of(key) for key in keys})
    assert keys_of([whole]) == ["f/gone.txt", "g/edited.txt", "g/excluded.txt", "g/new.txt"]
    assert Planner(context).plans(partitions) == whole.plans
    assert Planner(context).documents(keys).plans == whole.plans


def test_a_document_published_while_its_partition_is_listed_is_not_treated_as_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog is read before the source, for named partitions as for pages."""
    settings = world.settings.replace(partition_by="bucket:1")
    world = World(world.database, settings, world.embeddings)
    world.put("a.txt", "alpha")
    world.ingest()
    context, listing = world.context, ObjectSource.list

    def then_publish(source: ObjectSource, *args: Any) -> Iterator[SourceObject]:
        found = list(listing(source, *args))
        monkeypatch.undo()
        world.put("b.txt", "beta")
        world.ingest()
        return iter(found)

    monkeypatch.setattr(ObjectSource, "list", then_publish)
    assert Planner(context).plans(["0"]) == []
