"""The power fails right after a publication was committed: the files that it needs are on the disk of the table.

`test_power_cuts_of_sagas` cuts the power at every moment after a COMMIT of every kind of saga.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.types import Retention
from tests.support.crash.power import LoopDisk
from tests.support.world import World, paragraphs


@pytest.mark.promise("disks")
def test_a_confirmed_publication_survives_a_power_cut(world: World, disk: LoopDisk) -> None:
    world = World(world.database, world.settings.replace(lancedb_uri=str(disk.root / "lancedb")), world.embeddings)
    world.put("a.txt", paragraphs("alpha", 3))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.put("a.txt", paragraphs("alpha again", 2))

    def copy(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.ACKNOWLEDGED, "before"):
            disk.copy()

    failpoints.install(copy)
    try:
        world.ingest()
    finally:
        failpoints.install(None)
    disk.continue_with_copy()
    world = World(world.database, world.settings, world.embeddings)
    assert world.audit().violations == []
    assert "alpha again" in world.text_at("a.txt")
    world.put("b.txt", paragraphs("after", 1))
    world.ingest()
    world.check_nothing_left()


@pytest.mark.promise("disks")
def test_every_file_of_a_publication_is_flushed_with_its_folder_before_postgres_commits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each edit here writes a data file, a deletion file, a transaction and a manifest, and an index later."""
    # By inode: a manifest is flushed under its private name, and gets its canonical one as a second link.
    flushed: set[int] = set()
    sync = os.fsync

    def note(opened: int) -> None:
        sync(opened)
        flushed.add(os.fstat(opened).st_ino)

    table = Path(world.settings.table_uri)
    there: set[Path] = set()
    published: list[int] = []

    def check(boundary: Boundary, side: str) -> None:
        if (boundary, side) == (Boundary.VERSION_CHECKED, "after"):
            new = {path for path in table.rglob("*") if path.is_file() and "hint" not in path.name} - there
            needed = {*new, *(parent for path in new for parent in path.parents if parent.is_relative_to(table))}
            assert [path for path in needed if path.stat().st_ino not in flushed] == []
            published.append(len(new))
            there.update(new)

    monkeypatch.setattr(os, "fsync", note)
    failpoints.install(check)
    try:
        for text in ("one", "two", "three"):
            world.put("a.txt", paragraphs(text, 3))
            world.put("b.txt", paragraphs("still", 2))
            world.ingest()
        maintain(world.corpus, Retention())
        world.roll_back(3, "a.txt")
    finally:
        failpoints.install(None)
    assert len(published) >= 5
    unflushed = [path for path in (table, *table.parents) if path.stat().st_ino not in flushed]
    assert unflushed == [], "made with the table"


@pytest.mark.promise("disks")
@pytest.mark.parametrize(("content", "opened"), [(b"", True), (b"", False), (bytes(400), False)])
def test_a_commit_interrupted_by_a_power_cut_is_undone_by_a_recovery(
    world: World, content: bytes, opened: bool
) -> None:
    """The manifest got its name, and none of its bytes, before Postgres had committed."""
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    name = f"{2**64 - 1 - (world.head + 1):020d}.manifest"
    corpus = world.corpus if opened else find_corpus(world.database, world.settings)
    (Path(world.settings.table_uri) / "_versions" / name).write_bytes(content)
    recover(corpus, silence=0)
    world = World(world.database, world.settings, world.embeddings)
    assert world.audit().violations == []
    world.put("a.txt", paragraphs("alpha again", 2))
    world.ingest()
    world.check_nothing_left()
