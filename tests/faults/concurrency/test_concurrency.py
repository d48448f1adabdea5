"""Many writers and readers at once: each reader sees one publication, whole."""

from __future__ import annotations

import pytest

from ingest_pipeline import failpoints
from ingest_pipeline.failpoints import Boundary
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.servers.embedding_server import Fault, vector_of
from tests.support.world import World, paragraphs


def same(text: str, other: str) -> bool:
    return "".join(text.split()) == "".join(other.split())


@pytest.mark.promise("many-writers")
def test_a_document_published_meanwhile_is_not_overwritten(world: World) -> None:
    """Two writers prepare the same document; the second to publish has the older text."""
    newer = paragraphs("newer", 2)
    world.put("a.txt", paragraphs("first", 2))
    world.ingest()
    world.put("a.txt", paragraphs("older", 2))

    def publish_newer(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "after"):
            failpoints.install(None)
            world.put("a.txt", newer)
            world.ingest()

    failpoints.install(publish_newer)
    world.ingest()
    assert same(world.text_at("a.txt"), newer)
    world.check_nothing_left()


def test_a_file_removed_while_it_is_prepared_is_published_and_the_next_run_removes_it(world: World) -> None:
    """A second run finds the file neither in the source nor at head, so it succeeds without a publication."""
    assert world.corpus
    world.put("a.txt", paragraphs("alpha", 2))

    def remove_it(name: Boundary, side: str) -> None:
        if (name, side) == (Boundary.PREPARED, "after"):
            failpoints.install(None)
            world.remove("a.txt")
            assert world.ingest().publications == []

    failpoints.install(remove_it)
    assert len(world.ingest().publications) == 1
    assert world.text_at("a.txt")
    [removal] = world.ingest().publications
    assert [plan.key for plan in removal.removed] == ["a.txt"]
    world.check_nothing_left()


@pytest.mark.promise("embedding-faults")
def test_vectors_that_arrive_out_of_order_are_sorted(world: World) -> None:
    world.put("a.txt", paragraphs("alpha", 5))
    world.embeddings.fail_next(Fault.SHUFFLED, times=2)  # the first request of a model carries one text
    world.ingest()
    for row in world.corpus.table.rows(world.head, ["text", "vector"]).to_pylist():
        assert row["vector"] == vector_of(row["text"], 32).tolist()


@pytest.mark.promise("many-writers")
def test_processes_that_ingest_the_same_documents_at_once_publish_each_once(world: World) -> None:
    assert world.corpus
    texts = {f"{number}.txt": paragraphs(f"topic{number}", 2) for number in range(4)}
    for key, text in texts.items():
        world.put(key, text)
    children = [Child(crash_jobs.ingest, world.address) for _ in range(3)]
    outcomes = [child.outcome() for child in children]
    assert all(outcome.error is None for outcome in outcomes), outcomes
    assert sum(len(outcome.result) for outcome in outcomes) == 1
    assert all(same(world.text_at(key), text) for key, text in texts.items())
    world.check_nothing_left()


@pytest.mark.promise("many-writers")
def test_processes_that_ingest_different_documents_at_once_publish_them_all(world: World) -> None:
    assert world.corpus
    keys = [f"{number}.txt" for number in range(4)]
    for key in keys:
        world.put(key, paragraphs(key, 2))
    children = [Child(crash_jobs.ingest, world.address, [key]) for key in keys]
    versions = [version for child in children for version in child.outcome().result]
    assert len(set(versions)) == len(keys)
    assert sorted(world.texts()) == keys
    world.check_nothing_left()


@pytest.mark.promise("readers")
def test_a_reader_sees_a_document_as_it_was_or_as_it_is_while_it_shrinks(world: World) -> None:
    world.put("a.txt", paragraphs("long", 200))
    world.ingest()
    sizes = {len(world.chunks("a.txt"))}
    world.put("a.txt", paragraphs("short", 50))
    child = Child(crash_jobs.ingest, world.address)
    seen: set[tuple[int, int]] = set()
    while child.runs():
        seen.add(counts_at_head(world))
    assert child.outcome().error is None
    sizes.add(len(world.chunks("a.txt")))
    seen.add(counts_at_head(world))
    assert seen <= {(size, size) for size in sizes}


def counts_at_head(world: World) -> tuple[int, int]:
    """Chunks in the catalog and rows in the table, at one head."""
    head = world.head
    return len(world.chunks("a.txt", head)), world.corpus.table.rows(head, ["id"]).num_rows


@pytest.mark.promise("readers")
def test_an_old_head_reads_the_same_through_publications_deaths_and_sweeps(world: World) -> None:
    world.put("a.txt", paragraphs("first", 3))
    world.ingest()
    old = world.head
    chunks, texts = world.chunks("a.txt", old), world.texts(old)
    for number in range(6):
        world.put("a.txt", paragraphs(f"other{number}", 1 + number % 3))
        if number == 3:
            world.remove("a.txt")
        world.ingest()
        world.sweep()
        assert (world.chunks("a.txt", old), world.texts(old)) == (chunks, texts)
