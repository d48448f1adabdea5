"""Documents become rows in both stores, and only what changed is done again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from uuid import uuid4

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.errors import FencedError, RemovalsWithheldError, SourceUnavailableError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.ledger import failures, sagas
from ingest_pipeline.sources import filters
from ingest_pipeline.types import SourceObject
from tests.support.servers.embedding_server import POISON
from tests.support.world import World, paragraphs


def test_documents_become_rows_that_agree(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 5))
    world.put("folder/b.md", "# Beta\n\n" + paragraphs("beta", 3))
    summary = world.ingest()
    assert len(summary.publications) == 1
    report = world.audit()
    assert report.violations == []
    assert report.documents == 2
    assert report.chunks == world.embeddings.embedded


@pytest.mark.promise("again")
def test_ingesting_again_does_nothing(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 5))
    world.ingest()
    before = world.head, world.embeddings.requests, world.corpus.table.all_files()
    summary = world.ingest()
    assert not summary.publications
    assert (world.head, world.embeddings.requests, world.corpus.table.all_files()) == before


@pytest.mark.promise("edits-stay-local")
def test_an_edit_pays_for_the_changed_chunks_only(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 20))
    world.ingest()
    world.embeddings.reset_counters()
    world.put("a.txt", paragraphs("alpha", 20) + "\n\nA new paragraph at the end.")
    world.ingest()
    assert 1 <= world.embeddings.embedded <= 3
    assert world.audit().violations == []


def test_a_removed_document_leaves_both_stores(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 2))
    world.put("b.txt", paragraphs("beta", 2))
    world.ingest()
    world.remove("a.txt")
    world.ingest()
    assert world.chunks("a.txt") == []
    assert world.text_at("a.txt") == ""
    assert world.audit().violations == []
    world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    assert world.audit().documents == 2


def test_a_bad_document_does_not_stop_the_others(world: World) -> None:
    world.put("good.txt", paragraphs("good", 2))
    world.put("bad.txt", "\0")
    summary = world.ingest()
    assert list(summary.failed) == ["bad.txt"]
    assert world.audit().documents == 1


@pytest.mark.promise("again")
def test_a_touched_file_with_the_same_bytes_is_not_published_again(world: World) -> None:
    path = world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    before = world.head
    path.write_text(path.read_text())
    assert len(world.ingest().unchanged) == 1
    assert world.head == before
    assert world.ingest().unchanged == []


@pytest.mark.promise("no-missed-edit")
def test_an_edit_that_keeps_size_and_time_is_published(world: World) -> None:
    path = world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    times = path.stat()
    path.write_text(paragraphs("omega", 2))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert len(world.ingest().publications) == 1
    assert "omega" in world.corpus.table.rows(world.head, ["text"]).to_pylist()[0]["text"]


def test_changed_permissions_are_examined_once_and_never_published(world: World) -> None:
    path = world.put("a.txt", paragraphs("alpha", 2))
    world.ingest()
    path.chmod(0o600)
    summary = world.ingest()
    assert ([plan.key for plan in summary.unchanged], summary.publications) == (["a.txt"], [])
    assert world.ingest().unchanged == []


def test_a_chunk_is_the_text_at_its_offsets(world: World) -> None:
    text = paragraphs("alpha", 9)
    world.put("a.txt", text)
    world.ingest()
    rows = world.corpus.table.rows(world.head, ["text", "start_offset", "end_offset"]).to_pylist()
    assert rows
    assert all(text[row["start_offset"] : row["end_offset"]] == row["text"] for row in rows)


def test_an_old_head_reads_the_same_after_a_publication(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 4))
    world.ingest()
    old = world.head
    chunks, text = world.chunks("a.txt", old), world.text_at("a.txt", old)
    world.put("a.txt", paragraphs("other", 2))
    world.ingest()
    assert world.head > old
    assert (world.chunks("a.txt", old), world.text_at("a.txt", old)) == (chunks, text)


@pytest.mark.promise("many-writers")
def test_a_document_published_while_the_source_is_listed_is_not_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a.txt", paragraphs("alpha", 1))
    world.ingest()
    source = world.context.source
    listing = source.list

    def listing_overtaken(*_: str) -> Iterator[SourceObject]:
        found = list(listing())
        world.put("b.txt", paragraphs("beta", 1))
        World(world.database, world.settings, world.embeddings).ingest(["b.txt"])
        yield from found

    monkeypatch.setattr(source, "list", listing_overtaken)
    assert world.ingest().publications == []
    assert world.audit().documents == 2


@pytest.mark.promise("pay-once")
def test_a_document_that_comes_back_is_not_embedded_again(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    embedded = world.embeddings.embedded
    world.remove("a.txt")
    world.ingest()
    world.put("a.txt", paragraphs("other", 2))
    world.ingest()
    between = world.embeddings.embedded
    world.put("a.txt", paragraphs("alpha", 3))
    world.ingest()
    assert embedded < between == world.embeddings.embedded
    assert world.audit().violations == []


def test_embedded_texts_of_a_failed_document_are_not_embedded_again(world: World) -> None:
    good = paragraphs("alpha", 20)
    world.put("a.txt", f"{good}\n\n{POISON} is refused by the API.")
    world.put("b.txt", paragraphs("beta", 2))
    assert list(world.ingest().failed) == ["a.txt"]
    embedded = world.embeddings.embedded
    world.put("a.txt", good)
    world.ingest()
    assert world.embeddings.embedded <= embedded + 1
    world.sweep()
    assert world.audit().violations == []


@pytest.mark.promise("source-faults")
@pytest.mark.parametrize("leaves_a_mount_point", [False, True])
def test_a_source_that_disappears_during_a_run_removes_no_document(world: World, leaves_a_mount_point: bool) -> None:
    texts = {f"{number}.txt": f"Text {number}." for number in range(12)}
    for key, text in texts.items():
        world.put(key, text)
    world.ingest()
    for key in texts:
        world.put(key, "Something else.")
    source = Path(world.settings.source)

    there = [source]

    def take_away(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.SAGA_BEGUN, "after") and there:
            there.pop().rename(source.with_name("away"))
            if leaves_a_mount_point:
                source.mkdir()

    failpoints.install(take_away)
    try:
        with pytest.raises(SourceUnavailableError) if not leaves_a_mount_point else nullcontext():
            assert {type(error) for _, error in world.ingest().failed.values()} == {RemovalsWithheldError}
    finally:
        failpoints.install(None)
    assert world.texts() == texts


def test_a_document_that_is_removed_while_it_is_read_leaves_both_stores(world: World) -> None:
    for number in range(3):
        world.put(f"{number}.txt", f"Text {number}.")
    world.ingest()
    world.put("1.txt", "Something else.")

    def unlink(_: Boundary, __: str) -> None:
        (Path(world.settings.source) / "1.txt").unlink(missing_ok=True)

    failpoints.install(unlink)
    try:
        assert world.ingest().failed == {}
    finally:
        failpoints.install(None)
    assert set(world.texts()) == {"0.txt", "2.txt"}
    world.check_nothing_left()


def test_a_name_that_is_too_long_is_excluded_and_affects_no_other_document(world: World) -> None:
    # Of what cannot be compressed, as Postgres would.
    parts = ["-".join(uuid4().hex for _ in range(7)) for _ in range(13)]
    world.put("a.txt", "alpha")
    world.put("/".join([*parts[:8], "b.txt"]), "beta")
    world.put("/".join([*parts, "c.txt"]), "gamma")
    page = Planner(world.context).page()
    assert page.excluded == {f"name of more than {filters.MAX_KEY_BYTES} bytes": 1}
    assert world.ingest().failed == {}
    assert sorted(world.texts().values()) == ["alpha", "beta"]
    world.check_nothing_left()


def test_a_saga_that_is_abandoned_repeatedly_is_not_the_fault_of_its_documents(world: World) -> None:
    world.put("a.txt", "alpha")
    corpus = world.corpus

    def give_up(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "before"):
            with corpus.database.transaction() as connection:
                sagas.abandon_live(connection, corpus.generation, "for the test")

    failpoints.install(give_up)
    try:
        (_, error) = world.ingest().failed["a.txt"]
    finally:
        failpoints.install(None)
    assert isinstance(error, FencedError)
    with corpus.database.transaction() as connection:
        assert failures.read_failures(connection, corpus.generation) == []
    world.check_nothing_left()
