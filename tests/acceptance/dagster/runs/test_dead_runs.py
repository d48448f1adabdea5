"""Runs whose process died are ended with their sagas."""

from __future__ import annotations

import os
import subprocess

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from ingest_pipeline.reporting import run_status
from ingest_pipeline.reporting.run_status import fail_dead_runs, own_process_tags
from tests.support.dagster.world import DagsterWorld
from tests.support.world import paragraphs


@pytest.mark.promise("dagster-deaths")
def test_a_run_is_tagged_with_its_process_and_ended_with_it(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    finished = dagster.run().dagster_run
    found = dagster.instance.get_run_by_id(finished.run_id)
    assert found is not None
    ((tag, process),) = own_process_tags().items()
    assert found.tags[tag] == process
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    lost, alive = (
        dagster.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={tag: name})
        for name in (f"{process}0", process)
    )
    assert isinstance(dagster.tick("docs_recovery_sensor"), dg.SkipReason)
    for run, status in ((lost, dg.DagsterRunStatus.FAILURE), (alive, dg.DagsterRunStatus.STARTED)):
        after = dagster.instance.get_run_by_id(run.run_id)
        assert after is not None
        assert after.status is status


def test_a_repeated_run_is_not_taken_for_dead_by_the_process_of_the_other_run(dagster: DagsterWorld) -> None:
    """Dagster gives it the tags of the run that it repeats."""
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    ((tag, process),) = own_process_tags().items()
    gone = {tag: f"{process}0"}
    failed = dagster.instance.create_run_for_job(job, tags=gone, status=dg.DagsterRunStatus.FAILURE)
    again = dagster.instance.create_run_for_job(
        job, tags=gone, status=dg.DagsterRunStatus.STARTED, parent_run_id=failed.run_id, root_run_id=failed.run_id
    )
    assert fail_dead_runs(dagster.instance) == []
    dagster.instance.add_run_tags(again.run_id, {tag: f"{process}1"})
    assert fail_dead_runs(dagster.instance) == [again.run_id]


@pytest.mark.promise("dagster-deaths")
def test_a_run_that_died_before_it_registered_its_process_is_ended(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    run = dagster.instance.create_run_for_job(job)
    started = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=job.name)
    dagster.instance.report_dagster_event(started, run_id=run.run_id)

    def status() -> dg.DagsterRunStatus | None:
        dagster.tick("docs_recovery_sensor")
        found = dagster.instance.get_run_by_id(run.run_id)
        return found and found.status

    assert status() is dg.DagsterRunStatus.STARTED, "it may still be about to"
    monkeypatch.setattr(run_status, "_CLAIM_SECONDS", 0.0)
    assert status() is dg.DagsterRunStatus.FAILURE


def test_a_launched_run_whose_worker_and_code_server_were_killed_is_ended(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    monkeypatch.setattr(run_status, "_CLAIM_SECONDS", 0.0)
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    dead = subprocess.Popen(["true"])
    dead.wait()
    runs = {
        name: dagster.instance.create_run_for_job(job)
        for name in ("never began", "worker died", "worker is starting", "started, died", "started, is slow")
    }
    for name, run in runs.items():
        event = "PIPELINE_START" if name.startswith("started") else "PIPELINE_STARTING"
        launched = dg.DagsterEvent(event_type_value=event, job_name=job.name)
        dagster.instance.report_dagster_event(launched, run_id=run.run_id)
    for name in list(runs)[1:]:
        pid = dead.pid if name.endswith("died") else os.getpid()
        dagster.instance.report_engine_event("Started process", runs[name], EngineEventData.in_process(pid))
    dagster.tick("docs_recovery_sensor")
    after = {name: dagster.instance.get_run_by_id(run.run_id) for name, run in runs.items()}
    statuses = {name: run.status for name, run in after.items() if run is not None}
    assert statuses == {
        "never began": dg.DagsterRunStatus.FAILURE,
        "worker died": dg.DagsterRunStatus.FAILURE,
        "worker is starting": dg.DagsterRunStatus.STARTING,
        "started, died": dg.DagsterRunStatus.FAILURE,
        "started, is slow": dg.DagsterRunStatus.STARTED,
    }


@pytest.mark.promise("dagster-deaths")
def test_a_run_that_fell_silent_on_another_machine_is_ended_with_its_saga(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    job = dagster.definitions.resolve_job_def("docs_ingest_job")
    ((tag, process),) = own_process_tags().items()
    runs = {
        name: dagster.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={tag: lives_in})
        for name, lives_in in (("elsewhere", f"elsewhere{process}"), ("here", process))
    }
    with dagster.connection() as connection:
        for run in runs.values():
            connection.execute(
                "INSERT INTO ingest_pipeline.saga (id, generation, kind, base_version, writer, run_id, seen_at) "
                "VALUES (gen_random_uuid(), 'docs', 'ingest', 1, 'elsewhere:1:1', %s, now() - interval '1 hour')",
                (run.run_id,),
            )
    assert isinstance(dagster.tick("docs_recovery_sensor"), dg.SkipReason)
    after = {name: dagster.instance.get_run_by_id(run.run_id) for name, run in runs.items()}
    statuses = {name: run.status for name, run in after.items() if run is not None}
    assert statuses == {"elsewhere": dg.DagsterRunStatus.FAILURE, "here": dg.DagsterRunStatus.STARTED}
