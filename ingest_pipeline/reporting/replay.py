"""Replay of reports: materializations of publications whose runs died before they reported them.

The ledger records when a publication was reported to Dagster. The recovery sensor reports those that were not and whose
run has ended, so that the UI shows the corpus as it is. A publication alone does not show whether a partition that
several documents share is complete. For such partitions the sensor requests a run, which compares them with the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import dagster as dg

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.reports import DocumentChange
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.reporting.materializations import DocumentReporter, drop_empty_partitions
from ingest_pipeline.reporting.run_status import has_ended
from ingest_pipeline.resources.names import DagsterNames

_MAX_RERUNS = 3


@dataclass(slots=True)
class ReplayReport:
    """How many publications were reported, and which partitions need a run before they can be."""

    reported: int = 0
    """Publications."""
    needs_rerun: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Partitions that several documents share, by the key of the run to request."""


def replay_reports(
    instance: dg.DagsterInstance,
    names: DagsterNames,
    ingest_context: IngestContext,
    upstream: Sequence[dg.AssetKey] = (),
) -> ReplayReport:
    """Report the unreported publications of runs that ended.

    Args:
        instance: Dagster's instance.
        names: Names of the corpus in Dagster.
        ingest_context: The open corpus with its source.
        upstream: The assets that make the files of the source.
    """
    corpus = ingest_context.corpus
    log = instance.report_runless_asset_event
    reporter = DocumentReporter(instance, names, ingest_context.recipe, upstream, log)
    with corpus.database.transaction() as connection:
        unreported = sagas.unreported(connection, corpus.generation)
    report = ReplayReport()
    for saga in unreported:
        if saga.run_id is None or not has_ended(instance, saga.run_id):
            continue
        with corpus.database.transaction() as connection:
            changes = reports.latest_changes(connection, saga.id)
        needs_rerun = _report(reporter, ingest_context, changes)
        key = _next_run_key(instance, saga.id) if needs_rerun else None
        if key is not None:
            report.needs_rerun[key] = needs_rerun
            continue
        with corpus.database.transaction() as connection:
            sagas.mark_reported(connection, saga.id)
        report.reported += 1
    return report


def _report(reporter: DocumentReporter, ingest_context: IngestContext, changes: Sequence[DocumentChange]) -> list[str]:
    """Report the changes; returns the partitions that need a run, which may be incomplete."""
    corpus = ingest_context.corpus
    rolled_back = any(change.target_version is not None for change in changes)
    if ingest_context.scheme.kind == "file" or rolled_back:
        reporter.report(corpus, changes, _status(changes))
        return []
    partitions = {change.partition for change in changes}
    return drop_empty_partitions(reporter.instance, reporter.names, corpus, partitions)


def _next_run_key(instance: dg.DagsterInstance, saga: UUID) -> str | None:
    """The key of the run to request; None if one succeeded, or if as many failed as are allowed.

    Dagster runs a key once, so requesting the key of a run in progress has no effect.
    """
    for attempt in range(_MAX_RERUNS):
        key = f"replay {attempt + 1} of {saga}"
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
        if not runs or not has_ended(instance, runs[0].run_id):
            return key
        if runs[0].status is dg.DagsterRunStatus.SUCCESS:
            return None
    return None


def _status(changes: Sequence[DocumentChange]) -> str:
    target = changes[0].target_version if changes else None
    done = "published" if target is None else f"rolled back to version {target}"
    return f"{done} by a run that ended before it reported this"
