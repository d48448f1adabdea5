"""An erasure that is killed anywhere is finished by the next recovery, and no writer brings the document back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.erasure.unfinished import continue_erasures
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.lance.indices import IndexKind
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.ledger import erasures
from ingest_pipeline.types import Retention
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.crash.places import ERASURE, places
from tests.support.crash.zombie import Zombie, named
from tests.support.world import World, paragraphs, passages_of

pytestmark = pytest.mark.promise("erasure")

PERSON = "Wilhelmina Zanzibarova lives at 12 Quince Street"
WORDS = IndexKind("text", "INVERTED", least=1, tail=1)


PIVOTS = [
    Place(Boundary.ERASURE_NOTED, "before"),
    Place(Boundary.LANCE_COMMIT, "after"),
    Place(Boundary.MANIFEST_INSTALLED, "before"),
    Place(Boundary.VERSIONS_REMOVED, "before"),
    Place(Boundary.TABLES_REWRITTEN, "after", 2),
]
"""The erasure is recorded and nothing else; its version is staged; it is committed; old versions are retired; only the
end is not recorded."""


def fill(world: World) -> None:
    """Two versions of the document to erase, another one in the same fragment, and an index over both."""
    world.put("a.txt", f"{paragraphs('alpha', 1)}\n\n{PERSON}")
    world.put("b.txt", paragraphs("beta", 1))
    world.ingest()
    world.put("a.txt", PERSON)
    world.ingest()
    maintain(world.corpus, Retention(7, 20), [WORDS])


def remains(world: World) -> list[str]:
    """Files of the table and tables of Postgres with the text or the name, as other programs find them."""
    found = [
        str(path)
        for path in Path(world.corpus.table.uri).rglob("*")
        if path.is_file() and (PERSON.encode() in path.read_bytes() or b"a.txt" in path.read_bytes())
    ]
    with world.database.transaction() as connection:
        for name in erasures.tables_of(connection, "ingest_pipeline"):
            rows = erasures.rows_as_text(connection, "ingest_pipeline", name)
            found += [f"{name}: {row}" for row in rows if "a.txt" in row or PERSON in row]
    return found


def crash(world: World, place: Place) -> None:
    fill(world)
    old = world.texts()
    assert remains(world)
    assert Child(crash_jobs.erase, world.address, ["a.txt"], kill_at=place).outcome().killed
    assert world.texts() in (old, {"b.txt": old["b.txt"]})
    world.check()
    world.recover()
    receipts = continue_erasures(world.corpus)
    if not receipts and "a.txt" in world.texts():
        assert place.boundary in (Boundary.COMMIT, Boundary.ERASURE_RECORDED), "nothing was recorded yet"
        receipts = [erase(world.corpus, ["a.txt"], reason="a request")]
    assert [receipt.found for receipt in receipts] in ([], [0])
    assert world.texts() == {"b.txt": old["b.txt"]}
    with world.database.transaction() as connection:
        [row] = erasures.read(connection, world.corpus.name)
    assert (row.keys, row.found) == (None, 0)
    assert row.erased_at is not None
    assert continue_erasures(world.corpus) == [], "an erasure is finished once"
    assert remains(world) == []
    assert world.ingest().publications == []
    world.check_nothing_left()


@pytest.mark.promise("sigkill")
@pytest.mark.parametrize("place", PIVOTS, ids=str)
def test_an_erasure_may_die_at_decisive_places(world: World, place: Place) -> None:
    crash(world, place)


@pytest.mark.promise("sigkill")
@pytest.mark.soak
@pytest.mark.parametrize("place", places(ERASURE), ids=str)
def test_an_erasure_may_die_at_every_passage(world: World, place: Place) -> None:
    crash(world, place)


def test_the_places_of_an_erasure_are_complete(world: World) -> None:
    fill(world)
    passed = passages_of(lambda: crash_jobs.erase(world.address, ["a.txt"]))
    for side in ("before", "after"):
        assert {name: count for (name, of), count in passed.items() if of == side} == ERASURE


@pytest.mark.promise("zombies")
@pytest.mark.parametrize(
    "place",
    [
        Place(Boundary.BATCH_SENT, "after"),
        pytest.param(Place(Boundary.FRAGMENT_WRITTEN, "after"), marks=pytest.mark.soak),
        Place(Boundary.PREPARED, "after"),
        pytest.param(Place(Boundary.LANCE_COMMIT, "after"), marks=pytest.mark.soak),
    ],
    ids=str,
)
def test_a_writer_that_prepared_the_document_before_does_not_bring_it_back(world: World, place: Place) -> None:
    fill(world)
    world.put("a.txt", f"{PERSON}, as ever. {paragraphs('more', 1)}")
    address = replace(world.address, database_url=named(world.database.url))
    zombie = Zombie(world.database.url, crash_jobs.ingest, address, place=place)
    zombie.die()
    erase(world.corpus, ["a.txt"], reason="a request")
    assert zombie.wake().ours
    check_erased(world)


@pytest.mark.promise("zombies")
def test_a_segment_that_was_built_over_the_document_before_is_not_published(world: World) -> None:
    """Its builder read the table before the erasure, and began its saga on that version."""
    fill(world)
    world.put("c.txt", paragraphs("gamma", 1))
    world.ingest()
    address = replace(world.address, database_url=named(world.database.url))
    place = Place(Boundary.INDEX_BUILT, "after")
    zombie = Zombie(world.database.url, crash_jobs.maintain, address, place=place)
    zombie.die()
    erase(world.corpus, ["a.txt"], reason="a request")
    built = world.corpus.table.segments(world.head, WORDS)
    assert zombie.wake().ours
    assert world.corpus.table.segments(world.head, WORDS) == built
    check_erased(world)


def test_a_saga_that_was_planned_before_and_begins_after_is_refused(world: World) -> None:
    """A plan that is older than the erasure, of a run that had not begun its saga."""
    fill(world)
    world.put("a.txt", f"{PERSON}, as ever.")
    plans = Planner(world.context).plans()
    assert [plan.key for plan in plans] == ["a.txt"]
    erase(world.corpus, ["a.txt"], reason="a request")

    async def run() -> None:
        async with create_embedder(world.embedding_settings) as embedder:
            await Ingestion(world.context, embedder).run(plans)

    asyncio.run(run())
    check_erased(world)


def check_erased(world: World) -> None:
    """Nothing of the document is left once the next sweep has removed what a zombie wrote."""
    assert "a.txt" not in world.texts()
    world.check()
    world.recover()
    assert world.recorded_vectors == 0
    world.check_nothing_left()
    assert remains(world) == []
    assert world.ingest().publications == []
