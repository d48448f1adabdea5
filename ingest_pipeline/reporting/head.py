"""The asset `head`: one materialization for each publication that changes what readers see.

The asset has no partitions, so one change of many documents starts the assets after it once. Compaction and restores
move head without a change of documents, and are not reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.postgres.catalog import pins, reports
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import SagaRow
from ingest_pipeline.reporting.data_versions import head_tags
from ingest_pipeline.reporting.materializations import cost_metadata, usage_metadata
from ingest_pipeline.reporting.run_status import is_in_progress
from ingest_pipeline.resources.names import HEAD, DagsterNames
from ingest_pipeline.saga.reconcile import lock

_TICKS_SECONDS = 60
"""Two evaluations of Dagster's automation conditions, which it begins every 30 seconds."""


def report_head(
    instance: dg.DagsterInstance,
    names: DagsterNames,
    corpus: Corpus,
    log: Callable[[dg.AssetMaterialization], None],
    *,
    again: bool = False,
) -> bool:
    """Materialize `head`, if a publication changed documents since its last materialization.

    The row lock keeps the events in the order of the publications, and lets concurrent runs report each of them once.

    Args:
        instance: Dagster's instance.
        names: Names of the corpus in Dagster.
        corpus: The corpus.
        log: Called with the event.
        again: Materialize `head` even if nothing was published since.

    Returns:
        Whether the event was logged.
    """
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        change = sagas.last_change(connection, corpus.generation)
        if change is None or (not again and head_version(change) == reported_version(instance, names)):
            return False
        log(_materialization(connection, names, corpus, change))
    return True


def report_silent_change(
    instance: dg.DagsterInstance,
    names: DagsterNames,
    corpus: Corpus,
    log: Callable[[dg.AssetMaterialization], None],
) -> bool:
    """Materialize `head` for a publication whose run ended before it did so, that no run made, or that a reader missed.

    A run in progress, or a script that is still ingesting, may publish more, so nothing is reported before it ends.
    """
    with corpus.database.transaction() as connection:
        change = sagas.last_change(connection, corpus.generation)
        if change is None:
            return False
        if head_version(change) == reported_version(instance, names):
            behind = pins.runs_behind(connection, names.corpus, Pin(change.generation, change.published_version or 0))
            return _was_missed(instance, names, behind) and report_head(instance, names, corpus, log, again=True)
        if any(saga.kind == change.kind for saga in sagas.unfinished(connection, corpus.generation)):
            return False
    if change.run_id is not None and is_in_progress(instance, change.run_id):
        return False
    return report_head(instance, names, corpus, log)


def _was_missed(instance: dg.DagsterInstance, names: DagsterNames, behind: Sequence[str]) -> bool:
    """Whether a run that read an earlier version may have hidden the last change of `head` from `eager()`.

    Dagster's condition takes a change for handled by a materialization of the asset that came later, even if its run
    had begun to read before the change, or between the same two ticks, even if it came before the change. This is
    decided when both are longer ago than two ticks, at the price of a run too many now and then.
    """
    event, now = instance.get_latest_materialization_event(names.key(HEAD)), time.time()
    if event is None or not behind or now < event.timestamp + _TICKS_SECONDS:
        return False
    # The condition still knows the change if the run failed.
    records = instance.get_run_records(dg.RunsFilter(run_ids=behind, statuses=[dg.DagsterRunStatus.SUCCESS]))
    ends = [record.end_time for record in records if record.end_time is not None]
    return any(event.timestamp - _TICKS_SECONDS < end < now - _TICKS_SECONDS for end in ends)


def head_version(change: SagaRow) -> str:
    """The data version of `head` after a publication."""
    return f"{change.generation}@{change.published_version}"


def reported_version(instance: dg.DagsterInstance, names: DagsterNames) -> str | None:
    """The data version of the last materialization of `head`."""
    event = instance.get_latest_materialization_event(names.key(HEAD))
    materialization = event.asset_materialization if event is not None else None
    return None if materialization is None else (materialization.tags or {}).get(DATA_VERSION_TAG)


def _materialization(
    connection: Connection, names: DagsterNames, corpus: Corpus, change: SagaRow
) -> dg.AssetMaterialization:
    totals = reports.totals(connection, corpus.generation)
    metadata: dict[str, dg.MetadataValue] = {
        "head": dg.MetadataValue.int(change.published_version or 0),
        "generation": dg.MetadataValue.text(change.generation),
        "saga": dg.MetadataValue.text(str(change.id)),
        "documents": dg.MetadataValue.int(totals["documents"]),
        "chunks": dg.MetadataValue.int(totals["chunks"]),
        "dagster/row_count": dg.MetadataValue.int(totals["chunks"]),
        "dagster/uri": dg.MetadataValue.text(corpus.table.uri),
        "catalog": dg.MetadataValue.asset(names.key("metadata")),
    }
    if change.ended_at is not None:
        metadata["published"] = dg.MetadataValue.timestamp(change.ended_at)
    lag = reports.publication_lag(connection, change.id)
    if lag is not None:
        metadata["lag_seconds"] = dg.MetadataValue.float(round(max(0.0, lag), 1))
    if change.run_id is not None:
        metadata |= _run_metadata(connection, change.run_id)
    tags = head_tags(names, head_version(change))
    return dg.AssetMaterialization(names.key(HEAD), metadata=metadata, tags=tags)


def _run_metadata(connection: Connection, run_id: str) -> dict[str, dg.MetadataValue]:
    """What the run that published used, as far as it is known now."""
    found: dict[str, dg.MetadataValue] = {
        "run": dg.MetadataValue.dagster_run(run_id),
        **usage_metadata(reports.run_progress(connection, run_id).usage, "run_"),
    }
    for cost in embedding_cache.costs(connection, run_id=run_id):
        found |= cost_metadata("run_cost", cost.amount, cost.currency)
    return found
