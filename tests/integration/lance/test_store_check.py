"""A store that overwrites an object that a request only wants to create is refused before it has a table."""

from __future__ import annotations

import logging
import os
from itertools import count
from pathlib import Path

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.errors import UnsafeStoreError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.lance.versions.store_check import check_store
from ingest_pipeline.restore.relocate import move_tables
from ingest_pipeline.sources.object_store import ObjectSource
from tests.support.servers.s3 import S3Server
from tests.support.world import World, paragraphs

pytestmark = pytest.mark.promise("trusted-stores")

CREATION = r"^PUT /.*\.store_check"
_numbers = count()


@pytest.fixture(autouse=True)
def _credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder(s3: S3Server) -> str:
    return s3.url(f"tables{next(_numbers)}")


@pytest.fixture
def on_s3(world: World, folder: str) -> World:
    """A world whose tables are in the store, with one document that is not ingested yet."""
    world.put("a.txt", paragraphs("alpha", 2))
    return World(world.database, world.settings.replace(lancedb_uri=folder), world.embeddings)


def keys(folder: str) -> list[str]:
    return [obj.key for obj in ObjectSource(folder).list()]


def requests_of_checks(s3: S3Server) -> list[str]:
    """The methods of the requests of checks since the last call."""
    return [line.partition(" ")[0] for line in s3.requests() if ".store_check" in line]


def test_a_store_is_checked_once_when_a_table_is_created(on_s3: World, s3: S3Server, folder: str) -> None:
    s3.requests()
    on_s3.ingest()
    assert requests_of_checks(s3) == ["PUT", "PUT"]
    assert not [key for key in keys(folder) if "store_check" in key]
    again = World(on_s3.database, on_s3.settings, on_s3.embeddings)
    again.put("a.txt", paragraphs("alpha again", 2))
    again.ingest()
    assert requests_of_checks(s3) == []
    again.check_nothing_left()


def test_a_store_that_ignores_the_condition_gets_no_table(on_s3: World, s3: S3Server, folder: str) -> None:
    with (
        s3.failing(CREATION, "condition ignored"),
        pytest.raises(UnsafeStoreError, match=r"overwrote an object .*\(If-None-Match: \*\)") as refused,
    ):
        on_s3.ingest()
    assert f"{folder}/docs.lance" in str(refused.value)
    assert "Set INGEST_LANCEDB_URI to a store that supports conditional writes" in str(refused.value)
    assert keys(folder) == []
    with on_s3.database.transaction() as connection:
        assert connection.execute("SELECT name FROM ingest_pipeline.generation").fetchall() == []
    on_s3.ingest()


def test_a_store_that_does_not_know_the_condition_gets_no_table(s3: S3Server, folder: str) -> None:
    with (
        s3.failing(CREATION, "501"),
        pytest.raises(UnsafeStoreError, match=r"does not support conditional writes: .*NotImplemented"),
    ):
        check_store(f"{folder}/docs.lance")
    assert keys(folder) == []


def test_an_answer_that_is_lost_is_no_reason_to_refuse(s3: S3Server, folder: str) -> None:
    with s3.failing(CREATION, "reply lost", times=1) as lost:
        check_store(f"{folder}/docs.lance")
    assert lost == [1]
    assert keys(folder) == []


def test_a_store_that_fails_is_reported_and_left_to_the_creation(
    s3: S3Server, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    with s3.failing(CREATION, "403"), caplog.at_level(logging.WARNING):
        check_store(f"{folder}/docs.lance")
    assert f"{folder}/docs.lance could not be checked for conditional writes: " in caplog.text


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_creation_that_ends_at_the_check_begins_again(on_s3: World, folder: str, side: str) -> None:
    def end(*passed: str) -> None:
        if passed == (Boundary.STORE_CHECKED, side):
            raise KeyboardInterrupt

    failpoints.install(end)
    try:
        with pytest.raises(KeyboardInterrupt):
            on_s3.ingest()
    finally:
        failpoints.install(None)
    assert keys(folder) == []
    on_s3.ingest()
    on_s3.check_nothing_left()


def test_what_a_check_that_died_left_is_swept(on_s3: World, s3: S3Server, folder: str) -> None:
    on_s3.ingest()
    left = "docs.lance/_transactions/0.store_check"
    s3.put(f"{folder.rpartition('/')[2]}/{left}", b"first")
    assert left in keys(folder)
    on_s3.check_nothing_left()
    assert left not in keys(folder)


def test_a_table_is_not_moved_to_a_store_that_ignores_the_condition(
    world: World, on_s3: World, s3: S3Server, folder: str
) -> None:
    del on_s3
    world.ingest()
    head = world.head
    root = Path(world.settings.lancedb_uri)
    for path in root.rglob("*"):
        if path.is_file():
            s3.put(f"{folder.rpartition('/')[2]}/{path.relative_to(root)}", path.read_bytes())
    with s3.failing(CREATION, "condition ignored"), pytest.raises(UnsafeStoreError, match="Nothing was changed"):
        move_tables(world.database, "docs", folder)
    assert world.head == head
    assert move_tables(world.database, "docs", folder) == [f"{folder}/docs.lance"]


@pytest.mark.parametrize("uri", ["/tables/docs.lance", "file:///tables/docs.lance", "s3+ddb://b/t?ddbTableName=c"])
def test_a_store_that_does_not_decide_by_the_condition_is_not_asked(uri: str, s3: S3Server) -> None:
    s3.requests()
    check_store(uri)
    assert s3.requests() == []
