"""Many processes work on one corpus: backfills in any order, files that come and go, maintenance beside them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child
from tests.support.world import World, paragraphs

_PROCESSES = 3
KEYS = [f"{number}.txt" for number in range(6)]


def squeezed(text: str) -> str:
    """Without the spaces, of which a chunk drops those at its ends."""
    return "".join(text.split())


def look(world: World) -> dict[str, str]:
    """What a reader sees at head. In both stores it is the same chunks."""
    head = world.head
    rows = world.corpus.table.rows(head, ["id", "document"]).to_pylist()
    with world.database.transaction() as connection:
        found = connection.execute(
            "SELECT c.id, c.document FROM ingest_pipeline.chunk c "
            "JOIN ingest_pipeline.document d ON d.saga = c.saga AND d.key = c.document "
            "WHERE d.generation = %(generation)s AND NOT d.removed AND d.published_version <= %(head)s "
            "AND (d.superseded_version IS NULL OR d.superseded_version > %(head)s)",
            {"generation": world.corpus.generation, "head": head},
        ).fetchall()
    assert sorted(row["id"] for row in rows) == sorted(str(row["id"]) for row in found)
    return {key: squeezed(text) for key, text in world.texts(head).items()}


def looks_while(world: World, children: list[Child]) -> Iterator[dict[str, str]]:
    """What a reader sees again and again until all have ended, without an error."""
    while any(child.runs() for child in children):
        yield look(world)
    for child in children:
        outcome = child.outcome()
        assert outcome.error is None, outcome
    yield look(world)


def versions_of(text: str) -> list[str]:
    return [paragraphs(f"{text} {generation}", 2) for generation in range(2)]


@pytest.mark.promise("many-writers")
def test_shuffled_backfills_of_the_same_partitions_publish_each_document_once(world: World) -> None:
    assert world.corpus
    for key in KEYS:
        world.put(key, paragraphs(key, 2))
    random = Random(7)
    orders = [random.sample(KEYS, len(KEYS)) for _ in range(_PROCESSES)]
    children = [Child(crash_jobs.ingest_in_turn, world.address, order) for order in orders]
    wanted = {key: squeezed(paragraphs(key, 2)) for key in KEYS}
    for seen in looks_while(world, children):
        assert seen.items() <= wanted.items()
    assert look(world) == wanted
    assert published_counts(world) == dict.fromkeys(KEYS, 1)
    world.check_nothing_left()


def published_counts(world: World) -> dict[str, int]:
    """How often each document was published."""
    with world.database.transaction() as connection:
        rows = connection.execute(
            "SELECT key, count(*)::int AS n FROM ingest_pipeline.document "
            "WHERE generation = %s AND published_version IS NOT NULL GROUP BY key",
            (world.corpus.generation,),
        )
        return {row["key"]: row["n"] for row in rows}


@pytest.mark.promise("many-writers")
def test_a_file_that_goes_and_comes_back_is_seen_whole_or_not_at_all(world: World) -> None:
    first, second = versions_of("a")
    world.put("b.txt", paragraphs("beta", 1))
    world.put("a.txt", first)
    world.ingest()
    children = [Child(crash_jobs.ingest_again_and_again, world.address, 5) for _ in range(2)]
    allowed = {None, squeezed(first), squeezed(second)}
    for number, seen in enumerate(looks_while(world, children)):
        assert seen.get("a.txt") in allowed
        if number % 3 == 0:
            world.remove("a.txt")
        elif number % 3 == 1:
            world.put("a.txt", [first, second][number % 2])
    world.put("a.txt", second)
    world.ingest()
    assert look(world)["a.txt"] == squeezed(second)
    world.check_nothing_left()


@pytest.mark.promise("many-writers")
def test_concurrent_sweeps_and_compactions_lose_and_expose_nothing(world: World) -> None:
    texts = {key: versions_of(key) for key in KEYS}
    for key in KEYS:
        world.put(key, texts[key][0])
        world.ingest()
    for key in KEYS:
        world.put(key, texts[key][1])
    children = [
        Child(crash_jobs.ingest_in_turn, world.address, KEYS[::2]),
        Child(crash_jobs.ingest_in_turn, world.address, KEYS[1::2]),
        Child(crash_jobs.again_and_again, crash_jobs.sweep, world.address, 4),
        Child(crash_jobs.again_and_again, crash_jobs.maintain, world.address, 4),
    ]
    for seen in looks_while(world, children):
        assert seen.keys() == set(KEYS)
        assert all(text in map(squeezed, texts[key]) for key, text in seen.items())
    assert look(world) == {key: squeezed(texts[key][1]) for key in KEYS}
    world.check_nothing_left()


@pytest.mark.promise("many-writers")
@pytest.mark.parametrize("publications", [25, pytest.param(100, marks=pytest.mark.soak)])
def test_a_reader_at_an_old_head_reads_the_same_through_many_publications(world: World, publications: int) -> None:
    world.put("a.txt", paragraphs("first", 3))
    world.ingest()
    old = world.head
    rows = world.corpus.table.rows(old, world.corpus.table.columns(old))
    chunks = world.chunks("a.txt", old)
    for number in range(publications):
        world.put("a.txt", paragraphs(f"number {number}", 1 + number % 3))
        world.ingest()
        if number % 10 == 9:
            crash_jobs.maintain(world.address)
            world.sweep()
        assert world.corpus.table.rows(old, world.corpus.table.columns(old)).equals(rows)
        assert world.chunks("a.txt", old) == chunks
    assert world.head >= old + publications
    world.check_nothing_left()
