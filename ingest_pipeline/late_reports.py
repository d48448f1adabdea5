"""Materializations that are owed: of runs that died after they published and before they could say so.

The ledger notes when a publication was reported to Dagster. One that was not, and whose run has ended, is reported by
the recovery sensor, so that what the UI shows is what stands.
"""

from __future__ import annotations

import dagster as dg

from ingest_pipeline import catalog, ledger
from ingest_pipeline.assets.embeddings import cost_metadata
from ingest_pipeline.assets.partitions import document_partitions
from ingest_pipeline.catalog import DocumentChange
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.dead_runs import has_ended
from ingest_pipeline.ledger import Saga

_ASSETS = ("chunks", "embeddings", "metadata")


def report_late(instance: dg.DagsterInstance, corpus: Corpus) -> int:
    """Report what ended runs published and left unreported; returns how many publications."""
    with corpus.database.transaction() as connection:
        owed = ledger.unreported(connection, corpus.name)
    late = [saga for saga in owed if saga.run_id is not None and has_ended(instance, saga.run_id)]
    for saga in late:
        with corpus.database.transaction() as connection:
            changes = catalog.standing_changes(connection, saga.id)
        for change in changes:
            _report(instance, corpus.name, saga, change)
        with corpus.database.transaction() as connection:
            ledger.mark_reported(connection, saga.id)
    return len(late)


def _report(instance: dg.DagsterInstance, corpus: str, saga: Saga, change: DocumentChange) -> None:
    definition = document_partitions(corpus).name
    assert definition is not None  # noqa: S101  ours has one
    if change.removed:
        instance.delete_dynamic_partition(definition, change.partition)
        return
    metadata = {
        "status": dg.MetadataValue.text("published by a run that ended before it could say so"),
        "run": dg.MetadataValue.text(saga.run_id or ""),
        "saga": dg.MetadataValue.text(str(saga.id)),
        "chunks": dg.MetadataValue.int(change.chunk_count),
        "bought": dg.MetadataValue.int(change.bought),
        "reused": dg.MetadataValue.int(change.reused),
        "tokens": dg.MetadataValue.int(change.tokens),
        "requests": dg.MetadataValue.int(change.requests),
        "retries": dg.MetadataValue.int(change.retries),
        "seconds": dg.MetadataValue.float(round(change.seconds, 3)),
        **cost_metadata("cost", change.cost, change.currency),
        "head": dg.MetadataValue.int(change.published_version),
    }
    tags = {"dagster/data_version": f"{change.etag}/{change.recipe}"}
    for asset in _ASSETS:
        key = dg.AssetKey([corpus, asset])
        event = dg.AssetMaterialization(key, partition=change.partition, metadata=metadata, tags=tags)
        instance.report_runless_asset_event(event)
