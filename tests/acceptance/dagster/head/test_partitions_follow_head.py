"""A document that goes and comes back at once: Dagster's partition follows what stands, whoever reports first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.reporting import partitions
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.servers.embedding_server import POISON
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("shown-in-dagster")

REPORTING = (RunReport, "publication")
ABOUT_TO_DROP = (partitions, "lock")


@pytest.fixture
def dagster(dagster: DagsterWorld) -> DagsterWorld:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.put("b.txt", paragraphs("beta", 1))
    assert dagster.run().success
    return dagster


def known(dagster: DagsterWorld) -> set[str]:
    return set(dagster.instance.get_dynamic_partitions("docs_documents"))


def remove(dagster: DagsterWorld) -> None:
    (Path(dagster.settings.source) / "b.txt").unlink()


def put_back(dagster: DagsterWorld) -> None:
    dagster.put("b.txt", paragraphs("beta again", 1))


def meanwhile(monkeypatch: pytest.MonkeyPatch, place: tuple[object, str], work: Callable[[], object]) -> None:
    """Have something done, once, by somebody else, just before a function is called."""
    owner, name = place
    function, due = getattr(owner, name), [work]

    def called(*arguments: Any, **named: Any) -> Any:
        if due:
            with ThreadPoolExecutor(1) as other:
                other.submit(due.pop()).result()
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize("place", [REPORTING, ABOUT_TO_DROP], ids=["before_its_report", "while_it_is_reported"])
def test_a_document_that_comes_back_before_its_removal_is_reported_keeps_its_partition(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch, place: tuple[object, str]
) -> None:
    def come_back() -> None:
        put_back(dagster)
        assert dagster.run(partitions=["b.txt"]).success

    remove(dagster)
    meanwhile(monkeypatch, place, come_back)
    assert dagster.run(partitions=["b.txt"]).success
    assert known(dagster) == {"a.txt", "b.txt"}
    assert dagster.audit().documents == 2


def test_a_partition_dropped_during_a_run_is_added_again_before_its_materialization(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster never shows a materialization that came before its partition."""
    seen: list[set[str]] = []
    store = dagster.instance.event_log_storage.store_event_batch

    def stored(entries: Any) -> None:
        seen.append(known(dagster))
        store(entries)

    put_back(dagster)
    meanwhile(monkeypatch, REPORTING, partial(dagster.instance.delete_dynamic_partition, "docs_documents", "b.txt"))
    monkeypatch.setattr(dagster.instance.event_log_storage, "store_event_batch", stored)
    assert dagster.run(partitions=["b.txt"]).success
    assert seen
    assert all("b.txt" in partitions for partitions in seen)


def test_a_document_removed_before_its_publication_is_reported_leaves_no_partition(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go() -> None:
        remove(dagster)
        assert dagster.run(partitions=["b.txt"]).success

    put_back(dagster)
    meanwhile(monkeypatch, REPORTING, go)
    assert dagster.run(partitions=["b.txt"]).success
    assert known(dagster) == {"a.txt"}
    assert dagster.materialized(METADATA) >= {"a.txt"}


def test_an_empty_instance_gets_all_partitions_and_a_materialization_embeds_nothing(
    dagster: DagsterWorld,
) -> None:
    for partition in known(dagster):
        dagster.instance.delete_dynamic_partition("docs_documents", partition)
    embedded = dagster.embeddings.embedded
    dagster.tick("docs_recovery_sensor")
    assert known(dagster) == {"a.txt", "b.txt"}
    assert dagster.run(partition="a.txt").success
    assert dagster.embeddings.embedded == embedded


def test_the_partition_of_a_file_that_was_never_published_goes_with_the_file(dagster: DagsterWorld) -> None:
    bad = dagster.put("bad.txt", f"{POISON} is refused by the API.")
    assert [run.success for run in dagster.follow()] == [False]
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert known(dagster) == {"a.txt", "b.txt", "bad.txt"}, "the file is there, and its partition says why it failed"
    bad.unlink()
    dagster.tick("docs_source_sensor")
    assert known(dagster) == {"a.txt", "b.txt"}


def test_a_partition_without_documents_is_kept_while_a_run_has_it(dagster: DagsterWorld) -> None:
    dagster.instance.add_dynamic_partitions("docs_documents", ["soon.txt"])
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    run = dagster.instance.create_run_for_job(job, tags={"dagster/partition": "soon.txt"})
    dagster.tick("docs_source_sensor")
    assert "soon.txt" in known(dagster)
    dagster.instance.report_run_failed(run)
    dagster.tick("docs_source_sensor")
    assert "soon.txt" not in known(dagster)


@pytest.mark.parametrize("named", [True, False], ids=["a_run_of_the_partition", "a_run_over_everything"])
def test_a_failed_partition_says_why(dagster: DagsterWorld, *, named: bool) -> None:
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    dagster.instance.add_dynamic_partitions("docs_documents", ["bad.txt"])
    assert not dagster.run(partition="bad.txt" if named else None).success
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        [record] = dagster.instance.fetch_observations(
            dg.AssetRecordsFilter(asset_key=asset, asset_partitions=["bad.txt"]), limit=10
        ).records
        observation = record.asset_observation
        assert observation is not None
        assert "bad.txt" in str(observation.metadata["failed"].value)
