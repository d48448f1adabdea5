"""Run requests for documents that differ, and the partitions of runs in progress."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import dagster as dg

from ingest_pipeline.planning.plan import MAX_OWN_RUNS, MAX_SHARED_DOCUMENTS, DocumentPlan
from ingest_pipeline.resources.names import DagsterNames

_MAX_SHARED_BYTES = 512 << 20
# A run costs about 7 CPU seconds to start, so a smaller share is not worth a run of its own.
_MIN_SHARED_DOCUMENTS = 500
_MIN_SHARED_BYTES = 64 << 20
# More runs would only wait in Dagster's queue.
MAX_RUNS = 8
IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_BACKFILL_JOB = "__ASSET_JOB"
_PARTITION = "dagster/partition"
_MAX_PLANS = 1000
_PLANS: dict[str, frozenset[str]] = {}
_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def run_requests(step: str, due: Sequence[DocumentPlan], at_once: int, **config: bool) -> list[dg.RunRequest]:
    """Run requests for the partitions of documents.

    Args:
        step: Name of the step that ingests.
        due: The documents that differ.
        at_once: How many runs may be in progress at once, among which the documents are shared.
        config: Further configuration of the step.
    """
    if len(due) > MAX_OWN_RUNS:
        return [shared_run(step, partitions, **config) for partitions in _shares(due, at_once)]
    # The partition of a deleted file may be gone from Dagster too, so the run names it in its configuration.
    there = {plan.partition for plan in due if plan.source is not None}
    return [
        dg.RunRequest(partition_key=partition, run_config=_run_config(step, **config))
        if partition in there
        else shared_run(step, [partition], **config)
        for partition in dict.fromkeys(plan.partition for plan in due)
    ]


def shared_run(step: str, partitions: Sequence[str], **config: bool | list[str]) -> dg.RunRequest:
    """A request for one run over any partitions, unlike Dagster's own ranges. Without partitions: all that differ."""
    return dg.RunRequest(run_config=_run_config(step, partitions=list(partitions), **config))


def runs_over_everything(step: str, count: int, **config: bool) -> list[dg.RunRequest]:
    """Requests for some runs that share all documents that differ. Each compares the whole source itself.

    That takes each a minute for a million documents, and many runs over some thousand named documents take longer.
    """
    return [
        dg.RunRequest(run_config=_run_config(step, share=number, shares=count, skip_too_recent=True, **config))
        for number in range(count)
    ]


def runs_at_once(instance: dg.DagsterInstance, pool: str, most: int) -> int:
    """How many runs of a pool may be in progress at once: its limit, and no more than a setting allows."""
    events = instance.event_log_storage
    if not events.supports_global_concurrency_limits:
        return most
    limit = next((one.limit for one in events.get_pool_limits() if one.name == pool), most)
    return max(1, min(limit, most))


def partitions_in_progress(
    instance: dg.DagsterInstance, names: DagsterNames, definition: dg.PartitionsDefinition[str]
) -> tuple[int, set[str] | None]:
    """The number of runs of a step in progress, and their partitions; None if one of them covers all partitions.

    Backfills and materializations from the UI run the step in Dagster's own job, and jobs of the user may include it.
    """
    runs = [run for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)) if _has_step(instance, run, names)]
    busy: set[str] = set()
    for run in runs:
        partitions = _partitions_of(run, names.step, instance, definition)
        if not partitions:
            return len(runs), None
        busy.update(partitions)
    return len(runs), busy


def _has_step(instance: dg.DagsterInstance, run: dg.DagsterRun, names: DagsterNames) -> bool:
    """Whether a run executes the step: one of the job, a backfill, or one of a job of the user that includes it."""
    if run.job_name == names.ingest_job:
        return True
    if run.asset_selection is not None:
        return any(map(names.is_own, run.asset_selection))
    if run.execution_plan_snapshot_id is None:
        return run.job_name == _BACKFILL_JOB
    return names.step in _steps(instance, run.execution_plan_snapshot_id)


def _steps(instance: dg.DagsterInstance, plan: str) -> frozenset[str]:
    """The steps of an execution plan, whose id is a hash of it."""
    if plan not in _PLANS:
        if len(_PLANS) >= _MAX_PLANS:
            _PLANS.clear()
        _PLANS[plan] = frozenset(instance.get_execution_plan_snapshot(plan).step_keys_to_execute)
    return _PLANS[plan]


def _partitions_of(
    run: dg.DagsterRun, step: str, instance: dg.DagsterInstance, definition: dg.PartitionsDefinition[str]
) -> Sequence[str]:
    if _PARTITION in run.tags:
        return [run.tags[_PARTITION]]
    if _FIRST in run.tags:
        return _range(run.tags[_FIRST], run.tags[_LAST], instance, definition)
    config: object = run.run_config
    for name in ("ops", step, "config", "partitions"):
        config = config.get(name) if isinstance(config, Mapping) else None
    return [str(partition) for partition in config] if isinstance(config, Sequence) else []


def _range(
    first: str, last: str, instance: dg.DagsterInstance, definition: dg.PartitionsDefinition[str]
) -> Sequence[str]:
    keys = definition.get_partition_keys(dynamic_partitions_store=instance)
    try:
        return keys[keys.index(first) : keys.index(last) + 1]
    except ValueError:  # one end of the range was deleted meanwhile
        return []


def _shares(due: Sequence[DocumentPlan], at_once: int) -> Iterator[list[str]]:
    """Group whole partitions into shares for several runs at once. Each is small enough for one run, and worth one."""
    total = sum(plan.source.size if plan.source else 0 for plan in due)
    most_documents = min(MAX_SHARED_DOCUMENTS, max(_MIN_SHARED_DOCUMENTS, ceil(len(due) / at_once)))
    most_bytes = min(_MAX_SHARED_BYTES, max(_MIN_SHARED_BYTES, ceil(total / at_once)))
    by_partition: dict[str, list[int]] = {}
    for plan in due:
        by_partition.setdefault(plan.partition, []).append(plan.source.size if plan.source else 0)
    share: list[str] = []
    documents = size = 0
    for partition, sizes in by_partition.items():
        if share and (documents + len(sizes) > most_documents or size + sum(sizes) > most_bytes):
            yield share
            share, documents, size = [], 0, 0
        share.append(partition)
        documents += len(sizes)
        size += sum(sizes)
    if share:
        yield share


def _run_config(step: str, **config: object) -> dict[str, object]:
    return {"ops": {step: {"config": config}}}
