"""Materializations that are owed: of runs that died after they published and before they could say so.

The ledger notes when a publication was reported to Dagster. One that was not, and whose run has ended, is reported by
the recovery sensor, so that what the UI shows is what stands. Of a partition that several documents share, a
publication alone does not say whether it is complete; there the sensor requests a run, which looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import dagster as dg

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres import reports, sagas
from ingest_pipeline.postgres.reports import DocumentChange
from ingest_pipeline.reporting.materializations import drop_empty_partitions, report_documents
from ingest_pipeline.reporting.run_status import has_ended

_LOOKS = 3


@dataclass(slots=True)
class ReplayReport:
    """What was told late, and what has to be looked at first."""

    reported: int = 0
    """Publications."""
    unclear: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Partitions that several documents share, by the key of the run that shall look at them."""


def replay_reports(instance: dg.DagsterInstance, ingest_context: IngestContext) -> ReplayReport:
    """Report what ended runs published and left unreported."""
    corpus = ingest_context.corpus
    with corpus.database.transaction() as connection:
        owed = sagas.unreported(connection, corpus.generation)
    report = ReplayReport()
    for saga in owed:
        if saga.run_id is None or not has_ended(instance, saga.run_id):
            continue
        with corpus.database.transaction() as connection:
            changes = reports.latest_changes(connection, saga.id)
        unclear = _tell(instance, ingest_context, changes)
        key = _next_look(instance, saga.id) if unclear else None
        if key is not None:
            report.unclear[key] = unclear
            continue
        with corpus.database.transaction() as connection:
            sagas.mark_reported(connection, saga.id)
        report.reported += 1
    return report


def _tell(instance: dg.DagsterInstance, ingest_context: IngestContext, changes: Sequence[DocumentChange]) -> list[str]:
    """Report what the changes prove; returns the partitions of which they prove nothing."""
    corpus = ingest_context.corpus
    rolled_back = any(change.target_version is not None for change in changes)
    if ingest_context.scheme.kind == "file" or rolled_back:
        log = instance.report_runless_asset_event
        report_documents(instance, corpus, changes, _status(changes), log, recipe=ingest_context.recipe)
        return []
    return drop_empty_partitions(instance, corpus, {change.partition for change in changes})


def _next_look(instance: dg.DagsterInstance, saga: UUID) -> str | None:
    """The key of the run that shall look; None if one has looked, or as many failed as may.

    Dagster runs a key once, so asking for one that is under way asks for nothing.
    """
    for attempt in range(_LOOKS):
        key = f"late report {attempt + 1} of {saga}"
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
        if not runs or not has_ended(instance, runs[0].run_id):
            return key
        if runs[0].status is dg.DagsterRunStatus.SUCCESS:
            return None
    return None


def _status(changes: Sequence[DocumentChange]) -> str:
    target = changes[0].target_version if changes else None
    done = "published" if target is None else f"rolled back to version {target}"
    return f"{done} by a run that ended before it could say so"
