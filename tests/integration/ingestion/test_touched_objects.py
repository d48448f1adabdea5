"""Touched objects: each is read from the source once, whether or not its bytes changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.sources.local import LocalFolder
from ingest_pipeline.types import SourceObject
from tests.support.world import World, ingest


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each object was read from the source."""
    counts: Counter[str] = Counter()
    read = LocalFolder.read

    def counted(folder: LocalFolder, obj: SourceObject) -> Iterator[bytes]:
        counts[obj.key] += 1
        return read(folder, obj)

    monkeypatch.setattr(LocalFolder, "read", counted)
    return counts


def touch(path: Path) -> None:
    past = path.stat().st_mtime - 60
    os.utime(path, (past, past))


def test_an_object_is_read_once_whether_its_bytes_changed_or_not(world: World, reads: Counter[str]) -> None:
    touched, changed = world.put("touched.txt", "alpha"), world.put("changed.txt", "beta")
    world.ingest()
    reads.clear()
    touch(touched)
    changed.write_text("zeta")
    touch(changed)
    summary = world.ingest()
    assert [plan.key for plan in summary.unchanged] == ["touched.txt"]
    assert [len(publication.documents) for publication in summary.publications] == [1]
    assert reads == {"touched.txt": 1, "changed.txt": 1}
    assert world.text_at("changed.txt") == "zeta"
    assert Planner(world.context).plans() == []


def test_an_object_on_hold_is_read_once(world: World, reads: Counter[str]) -> None:
    path = world.put("a.txt", "alpha")
    version = world.ingest().publications[0].version
    path.write_text("zetas")
    touch(path)
    world.ingest()
    world.roll_back(version)
    reads.clear()
    touch(path)
    assert [plan.key for plan in world.ingest().on_hold] == ["a.txt"]
    assert reads == {"a.txt": 1}
    path.write_text("gamma")
    touch(path)
    reads.clear()
    world.ingest()
    assert (world.text_at("a.txt"), reads) == ("gamma", {"a.txt": 1})


def test_documents_that_the_recipe_guard_read_are_not_read_again(world: World, reads: Counter[str]) -> None:
    for number in range(12):
        world.put(f"{number:02}.txt", f"text {number}")
    world.ingest()
    RecipeGuard(world.context).accept()
    other = open_context(world.database, world.settings.replace(chunk_size=900))
    path = world.put("03.txt", "next 3")
    touch(path)
    reads.clear()
    due, withheld = RecipeGuard(other).split(Planner(other).plans(), reads=True)
    assert ([plan.key for plan in due], len(withheld)) == (["03.txt"], 11)
    ingest(other, world.embedding_settings, ["03.txt"])
    assert reads == {"03.txt": 1}
