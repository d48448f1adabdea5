"""Marks Dagster runs as failed whose process is gone, so that nothing waits for them.

Dagster's code server monitors the runs that it started, as long as it is alive itself. Nothing monitors a run that dies
together with it, or in the process of the command line.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import time
from uuid import UUID

import dagster as dg
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.processes import is_dead, is_remote, is_running, this_process
from ingest_pipeline.resources.names import DagsterNames

_PROCESS_TAG = ".dagster/ingest_pipeline_process"  # the UI hides tags with this prefix
_OPEN = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# A run takes seconds from its start to the first line of its step, or half a minute on a busy machine.
_CLAIM_SECONDS = 120.0
_ENDED = {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS}


def own_process_tags() -> dict[str, str]:
    """Tags for a run that is executed in this process."""
    return {_PROCESS_TAG: this_process()}


def tag_run_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run that Dagster launched with its process."""
    instance.add_run_tags(run_id, own_process_tags())


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process ended without reporting a result; returns their ids."""
    dead: list[str] = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_OPEN)):
        process = _registered_process(instance, run)
        if process is not None and is_dead(process):
            instance.report_run_failed(
                run,
                "The run's process ended without reporting a result. The source sensor requests its documents again.",
            )
            dead.append(run.run_id)
    return dead


def _registered_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    """The process that executes the run, or None before it registers.

    Dagster gives a run that repeats another one the tags of the other, whose process has usually ended.
    """
    process = run.tags.get(_PROCESS_TAG)
    if process is None or run.parent_run_id is None:
        return process
    parent = instance.get_run_by_id(run.parent_run_id)
    return None if parent is not None and parent.tags.get(_PROCESS_TAG) == process else process


def fail_unclaimed_runs(instance: dg.DagsterInstance, names: DagsterNames) -> list[str]:
    """Mark runs of a corpus as failed whose worker exited before it registered its process; returns their ids.

    Dagster's code server notices the exit of a worker only while the server itself runs. If both are killed, a started
    run would stay open for ever, and a launched one until the ``start_timeout_seconds`` of ``run_monitoring``.

    With another launcher than Dagster's own, a living worker may be taken for dead under a heavy load. Either the
    worker continues, and what it publishes is reported later, or Dagster refuses to begin its run.
    """
    is_default = isinstance(instance.run_launcher, DefaultRunLauncher)
    # With another launcher, a launched run may wait in a queue.
    states = [dg.DagsterRunStatus.STARTED, *([dg.DagsterRunStatus.STARTING] if is_default else [])]
    failed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=states)):
        run = record.dagster_run
        if (
            _claims_at_once(run, names)
            and _registered_process(instance, run) is None
            and _is_unclaimed(instance, record, knows_workers=is_default)
        ):
            instance.report_run_failed(
                run,
                f"The run's worker exited before it registered its process ({_CLAIM_SECONDS:.0f} s timeout). "
                "Nothing was published. The source sensor requests its documents again.",
            )
            failed.append(run.run_id)
    return failed


def _claims_at_once(run: dg.DagsterRun, names: DagsterNames) -> bool:
    """Whether the run begins with a step of the corpus. Steps of other assets may take hours before it."""
    selected = run.asset_selection or frozenset()
    is_own = bool(selected) and all(map(names.is_own, selected))
    return is_own or run.job_name in names.jobs


def _is_unclaimed(instance: dg.DagsterInstance, record: dg.RunRecord, *, knows_workers: bool) -> bool:
    run = record.dagster_run
    is_started = run.status is dg.DagsterRunStatus.STARTED
    began = record.start_time if is_started else instance.get_run_stats(run.run_id).launch_time
    if began is None or time() - began <= _CLAIM_SECONDS:
        return False
    # The worker of Dagster's own launcher is a child of the code server, which runs this sensor too. A run that is
    # marked as failed while its worker lives gives its slot in the pool to another run, and then both embed.
    return not (knows_workers and any(is_running(pid) for pid in _worker_pids(instance, run.run_id)))


def _worker_pids(instance: dg.DagsterInstance, run_id: str) -> list[int]:
    """Process ids of the run's workers, from their first events."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
    pids = [event.engine_event_data.metadata.get("pid") for event in events]
    texts = [pid.text or "" for pid in pids if isinstance(pid, dg.TextMetadataValue)]
    return [int(text) for text in texts if text.isdecimal()]


def runs_in_doubt(corpus: Corpus) -> dict[UUID, str]:
    """The Dagster run of each saga that has not ended."""
    with corpus.database.transaction() as connection:
        unfinished = sagas.unfinished(connection, corpus.generation)
    return {saga.id: saga.run_id for saga in unfinished if saga.run_id is not None}


def fail_silent_runs(instance: dg.DagsterInstance, runs: Mapping[UUID, str], ended_sagas: Iterable[UUID]) -> list[str]:
    """Mark runs of another machine as failed whose sagas the recovery ended; returns their ids.

    Not every launcher notices that a machine is gone. Such a run would stay open and occupy its slot for hours.
    A run that is still alive is fenced, because its saga has ended.

    Args:
        instance: Dagster's instance.
        runs: The result of `runs_in_doubt` before the recovery.
        ended_sagas: Sagas that the recovery ended.
    """
    silent: list[str] = []
    for run_id in sorted({runs[saga] for saga in ended_sagas if saga in runs}):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status in _OPEN and is_remote(run.tags.get(_PROCESS_TAG, "")):
            instance.report_run_failed(
                run,
                "The run's machine sent no heartbeat, and recovery ended its saga. "
                "The source sensor requests its documents again.",
            )
            silent.append(run_id)
    return silent


def ended_runs(instance: dg.DagsterInstance, corpus: Corpus) -> Sequence[str]:
    """Runs that have ended according to Dagster, but whose saga has not ended."""
    with corpus.database.transaction() as connection:
        runs = {saga.run_id for saga in sagas.unfinished(connection, corpus.generation)}
    return [run for run in runs if run is not None and has_ended(instance, run)]


def is_in_progress(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster knows the run, and it has not ended."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status not in _ENDED


def has_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run has ended according to Dagster, with success or not."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in _ENDED
