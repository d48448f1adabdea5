"""Rollbacks in Dagster: their job, their materializations, and what stays on hold."""

from __future__ import annotations

import dagster as dg
import pytest

from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.world import paragraphs


def edited(dagster: DagsterWorld) -> None:
    """Version 2 has a and b; version 3 has another a, no b, and a new c."""
    dagster.put("a.txt", paragraphs("alpha", 2))
    gone = dagster.put("b.txt", paragraphs("beta", 1))
    assert dagster.run().success
    dagster.put("a.txt", paragraphs("spoilt", 2))
    dagster.put("c.txt", paragraphs("gamma", 1))
    gone.unlink()
    assert dagster.run().success


def test_the_rollback_job_materializes_rolled_back_documents(dagster: DagsterWorld) -> None:
    edited(dagster)
    versions = dagster.data_versions("a.txt")
    assert dagster.roll_back(version=2).success
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        shown = dagster.latest(asset, "a.txt")
        assert (shown["status"], shown["rolled_back_to"], shown["embedded"]) == ("rolled back to version 2", 2, 0)
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"a.txt", "b.txt"}
    assert dagster.data_versions("a.txt") == [versions[-1], *versions], "as it was then"
    assert dagster.audit().violations == []


def test_the_sensor_skips_rolled_back_documents_until_they_change(dagster: DagsterWorld) -> None:
    edited(dagster)
    assert dagster.roll_back(version=2).success
    for _ in range(2):
        tick = dagster.tick("docs_source_sensor")
        assert isinstance(tick, dg.SkipReason)
        assert "3 are on hold after a rollback" in str(tick.skip_message)
    assert dagster.run().success
    assert dagster.audit().head_version == 4
    assert dagster.failed_checks() == {"on_hold"}
    dagster.put("c.txt", paragraphs("later", 1))
    result = dagster.tick("docs_source_sensor")
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or ()] == ["c.txt"]


def test_a_run_that_the_sensor_requested_before_a_rollback_does_not_undo_it(dagster: DagsterWorld) -> None:
    edited(dagster)
    dagster.put("a.txt", paragraphs("newest", 1))
    tick = dagster.tick("docs_source_sensor")
    assert isinstance(tick, dg.SensorResult)
    (request,) = list(tick.run_requests or ())
    assert dagster.run().success
    assert dagster.roll_back(version=2, partitions=["a.txt"]).success
    head = dagster.audit().head_version
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    late = job.execute_in_process(
        run_config=request.run_config, partition_key=request.partition_key, instance=dagster.instance
    )
    assert late.success
    assert dagster.audit().head_version == head
    assert dagster.latest(CHUNKS, "a.txt")["status"] == "rolled back to version 2"


def test_materializing_a_partition_on_hold_ingests_it(dagster: DagsterWorld) -> None:
    edited(dagster)
    assert dagster.roll_back(version=2, partitions=["a.txt"]).success
    assert dagster.run(partition="a.txt").success
    assert "spoilt 0." in str(dagster.latest(CHUNKS, "a.txt")["preview"])
    assert dagster.check()["on_hold"]


def test_a_rollback_that_died_before_its_report_is_reported_by_the_recovery_sensor(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(dagster)

    def die(*_: object) -> None:
        raise dg.Failure("the process ends here", allow_retries=False)

    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.orchestration.jobs.rollback.report_published", die)
        assert not dagster.roll_back(version=2).success
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"a.txt", "c.txt"}
    assert "reported 1 publication." in str(dagster.tick("docs_recovery_sensor"))
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"a.txt", "b.txt"}
    assert str(dagster.latest(CHUNKS, "b.txt")["status"]).startswith("rolled back to version 2 by a run that ended")


def test_a_rollback_to_an_unknown_version_fails_with_a_message(dagster: DagsterWorld) -> None:
    edited(dagster)
    result = dagster.roll_back(version=77)
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.error is not None
    assert "Version 77 of corpus 'docs' is no publication" in failure.error.message
