"""A version is visible to every reader after COMMIT, and to none before: also to those that never ask the catalog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lance
import psycopg
import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.errors import ForeignWriteError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.saga.recover import recover
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.world import World, paragraphs

OLD, NEW = paragraphs("old", 3), paragraphs("new", 2)
AFTER_COMMIT = Place(Boundary.MANIFEST_INSTALLED, "before")


@pytest.fixture
def world(world: World) -> World:
    """About to replace a document."""
    world.put("a.txt", OLD)
    world.ingest()
    world.put("a.txt", NEW)
    return world


def latest_texts(world: World) -> str:
    """What a reader of the latest version finds, by Lance and by LanceDB."""
    uri = world.settings.table_uri
    found = lance.dataset(uri).to_table(["text"])["text"].to_pylist()
    import lancedb  # noqa: PLC0415  most processes of the tests do not need it, and it takes two seconds

    table = lancedb.connect(world.settings.lancedb_uri).open_table(world.corpus.generation)
    assert sorted(table.to_arrow()["text"].to_pylist()) == sorted(found)
    return "".join(sorted(found))


def manifest_of(world: World, version: int) -> bytes:
    return (Path(world.settings.table_uri) / f"_versions/{2**64 - 1 - version:020d}.manifest").read_bytes()


@pytest.mark.promise("readers")
def test_a_reader_of_the_latest_version_sees_only_what_was_committed(world: World) -> None:
    before = latest_texts(world)
    seen: dict[tuple[Boundary, str], tuple[int, bool]] = {}

    def look(boundary: Boundary, side: str) -> None:
        latest = lance.dataset(world.settings.table_uri).version
        seen[boundary, side] = (latest, latest_texts(world) == before)
        committed = reader.execute("SELECT max(published_version) FROM ingest_pipeline.saga").fetchone()
        assert committed is not None
        assert latest <= committed[0], (boundary, side)

    old = world.head
    with psycopg.connect(world.database.url, autocommit=True) as reader:
        failpoints.install(look)
        try:
            world.ingest()
        finally:
            failpoints.install(None)
    assert seen[Boundary.VERSION_CHECKED, "after"] == (old, True)
    assert seen[Boundary.ACKNOWLEDGED, "before"] == (world.head, False)


def read_head(world: World) -> int:
    return world.head


def open_with_the_resource(world: World) -> None:
    resource = VersionedLanceDBResource(
        uri=world.settings.lancedb_uri, catalog=PostgresCatalogResource(url=world.database.url)
    )
    with resource.head(world.settings.corpus) as table:
        assert table.version == world.head


def ingest_another(world: World) -> None:
    world.put("other.txt", paragraphs("other", 1))
    world.ingest()


@pytest.mark.promise("settled")
@pytest.mark.parametrize(
    "by", [World.recover, World.audit, read_head, open_with_the_resource, ingest_another],
    ids=["recovery", "audit", "reader_at_head", "resource", "writer"],
)  # fmt: skip
def test_who_comes_next_installs_the_manifest_of_a_writer_that_died(
    world: World, by: Callable[[World], object]
) -> None:
    before, old = latest_texts(world), world.head
    assert Child(crash_jobs.ingest, world.address, kill_at=AFTER_COMMIT).outcome().killed
    assert latest_texts(world) == before
    by(world)
    assert lance.dataset(world.settings.table_uri).version > old
    assert lance.dataset(world.settings.table_uri).version == world.head
    assert "new" in latest_texts(world)
    world.check_nothing_left()


@pytest.mark.promise("foreign-writes")
def test_a_version_that_took_the_number_of_head_is_reported_and_never_overwritten(world: World) -> None:
    version = world.head + 1
    assert Child(crash_jobs.ingest, world.address, kill_at=AFTER_COMMIT).outcome().killed
    lance.dataset(world.settings.table_uri).delete("document = 'a.txt'")
    theirs = manifest_of(world, version)
    world.put("other.txt", paragraphs("other", 1))
    for action in (lambda: world.head, world.ingest, world.recover, world.sweep):
        with pytest.raises(ForeignWriteError, match=f"Version {version} .*recover --restore"):
            action()
    assert manifest_of(world, version) == theirs
    recover(world.corpus, foreign="restore")
    assert world.head == version == world.corpus.table.latest_version()
    assert "".join(world.text_at("a.txt").split()) == "".join(NEW.split())
    world.check_nothing_left()
