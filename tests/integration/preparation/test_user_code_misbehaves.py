"""Code of the user that misbehaves in an ingest fails its document alone; what only reads calls no enricher."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from ingest_pipeline.ingestion.estimate import count
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.restore.lost_corpus import open_for_rebuild
from ingest_pipeline.restore.rebuild import rebuild_catalog
from tests.support.servers.batch_api import BatchServer
from tests.support.servers.databases import empty_database
from tests.support.world import World, collect_all, mark_served, paragraphs, submit_all

MODULE = "tests.support.user_code"
_SECONDS = 2
_PARSED = "surrogate columns infinite name page heading bytes strings none many huge endless greedy"
_CUT = "backward again overlap outside negative empty text float tuples none many"
_ENRICHED = "columns usage cost currency infinite none many"
_HOW = {
    "parser": ("Obedient", _PARSED),
    "chunker": ("ObedientChunker", _CUT),
    "enricher": ("ObedientEnricher", _ENRICHED),
}


@pytest.fixture
def embeddings() -> Generator[BatchServer]:
    with BatchServer() as server:
        yield server


def own(world: World, **options: object) -> World:
    """The same corpus with extensions."""
    return World(world.database, world.settings.replace(**options), world.embeddings)


@pytest.mark.promise("user-code")
@pytest.mark.parametrize("option", _HOW)
def test_whatever_an_extension_does_fails_its_document_alone(world: World, option: str) -> None:
    name, nonsense = _HOW[option]
    how = ["raise", "exit", "die", "hang", "spin", *nonsense.split()]
    found = own(world, **{option: {"class": f"{MODULE}.{name}", "arguments": {"seconds": _SECONDS}}})
    for what in how:
        found.put(f"{what}.do", what)
    for key in ("first.do", "zuletzt.do"):
        found.put(key, f"the text of {key}")
    summary = found.ingest()
    assert set(summary.failed) == {f"{what}.do" for what in how}
    assert all(f"the {option} {MODULE}.{name}" in str(error) for _, error in summary.failed.values())
    assert found.texts() == {key: f"the text of {key}" for key in ("first.do", "zuletzt.do")}
    found.check_nothing_left()
    with found.database.transaction() as connection:
        row = connection.execute("SELECT count(*)::int AS n FROM ingest_pipeline.extension_result").fetchone()
    assert row == {"n": 0}


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A file in which the enricher notes its calls."""
    return tmp_path / "calls"


@pytest.fixture
def enriched(world: World, calls: Path) -> World:
    """A corpus with an enricher that is billed for each call, and a published document."""
    enricher = {"class": f"{MODULE}.Costly", "arguments": {"calls": str(calls)}}
    found = own(world, enricher=enricher)
    found.put("a.txt", paragraphs("published", 2))
    found.ingest()
    assert called(calls) == 1
    return found


def called(calls: Path) -> int:
    return len(calls.read_text().splitlines())


@pytest.mark.promise("estimates")
def test_an_exact_plan_calls_no_enricher(enriched: World, calls: Path) -> None:
    enriched.put("b.txt", paragraphs("new", 2))
    counted = count(enriched.context, Planner(enriched.context).plans())
    assert (counted.documents, called(calls)) == (1, 1)
    enriched.ingest()
    assert called(calls) == 2


@pytest.mark.promise("estimates")
def test_a_batch_job_calls_no_enricher(enriched: World, calls: Path) -> None:
    mark_served(enriched.database, enriched.embedding_settings)
    enriched.put("b.txt", paragraphs("new", 2))
    assert len(submit_all(enriched.context, enriched.embedding_settings)) == 1
    assert isinstance(enriched.embeddings, BatchServer)
    enriched.embeddings.finish()
    collect_all(enriched.context, enriched.embedding_settings)
    assert called(calls) == 1
    enriched.ingest()
    assert called(calls) == 2
    assert set(enriched.texts()) == {"a.txt", "b.txt"}


@pytest.mark.promise("estimates")
def test_a_rebuild_of_the_catalog_calls_no_enricher(enriched: World, calls: Path, postgres: str, entrance: str) -> None:
    with Database(empty_database(postgres, entrance)) as database:
        lost = World(database, enriched.settings, enriched.embeddings)
        report = rebuild_catalog(open_for_rebuild(database, enriched.settings))
        assert report is not None
        assert (report.added, called(calls)) == (1, 1)
        assert lost.ingest().publications == []
        assert called(calls) == 1
