"""Writes materializations and observations in batches.

Dagster's storage opens a connection for every single write. The events equal those that `context.log_event` would
write. The call is the one that Dagster itself uses for batches.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from logging import DEBUG

import dagster as dg
from dagster._core.events import (  # there is no public API to write several events at once
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)

_BATCH = 500
_MATERIALIZED, _OBSERVED = DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION


def log_events(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    step: str,
    events: Sequence[dg.AssetMaterialization | dg.AssetObservation],
) -> None:
    """Log events of a step, all of one kind, in order for each asset."""
    by_asset: defaultdict[dg.AssetKey, list[dg.AssetMaterialization | dg.AssetObservation]] = defaultdict(list)
    for event in events:
        by_asset[event.asset_key].append(event)
    # The storage records the last event of a batch as its asset's latest, so each batch has the events of one asset.
    for found in by_asset.values():
        for start in range(0, len(found), _BATCH):
            batch = found[start : start + _BATCH]
            # Dagster's page of an asset's events shows one of those that have the same millisecond.
            now = time.time()
            times = [now - 0.001 * before for before in reversed(range(len(batch)))]
            entries = [_entry(run, step, event, at) for event, at in zip(batch, times, strict=True)]
            instance.event_log_storage.store_event_batch(entries)


def log_planned(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, key: dg.AssetKey, partition: str) -> None:
    """Log that the run planned to materialize a partition.

    If the run ends without doing so, Dagster shows the partition as failed.

    Dagster logs this itself for runs that it launches over partitions, but not for runs that name them in their
    configuration.
    """
    data = AssetMaterializationPlannedData(key, partition=partition)
    event = DagsterEvent.build_asset_materialization_planned_event(run.job_name, step, data)
    instance.report_dagster_event(event, run.run_id, DEBUG)


def log_check(instance: dg.DagsterInstance, run: dg.DagsterRun, step: str, evaluation: dg.AssetCheckEvaluation) -> None:
    """Log the evaluation of a check at once. What a step gives to its context is lost if the step then fails."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=run.job_name,
        step_key=step,
        event_specific_data=evaluation,
        message=f"Asset check {evaluation.check_name!r} {'passed' if evaluation.passed else 'did not pass'}.",
    )
    instance.report_dagster_event(event, run.run_id, DEBUG)


def _entry(
    run: dg.DagsterRun, step: str, event: dg.AssetMaterialization | dg.AssetObservation, timestamp: float
) -> dg.EventLogEntry:
    name = event.asset_key.to_user_string()
    data: StepMaterializationData | AssetObservationData
    if isinstance(event, dg.AssetMaterialization):
        kind, data, message = _MATERIALIZED, StepMaterializationData(event), f"Materialized value {name}."
    else:
        kind, data, message = _OBSERVED, AssetObservationData(event), f"Observed {name}."
    return dg.EventLogEntry(  # type: ignore[no-untyped-call]  # its constructor has no annotations
        error_info=None,
        level=DEBUG,
        user_message=message,
        run_id=run.run_id,
        timestamp=timestamp,
        step_key=step,
        job_name=run.job_name,
        dagster_event=DagsterEvent(
            event_type_value=kind.value,
            job_name=run.job_name,
            step_key=step,
            event_specific_data=data,
            message=message,
        ),
    )
