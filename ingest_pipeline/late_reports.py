"""Materializations that are owed: of runs that died after they published and before they could say so.

The ledger notes when a publication was reported to Dagster. One that was not, and whose run has ended, is reported by
the recovery sensor, so that what the UI shows is what stands.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import DocumentChange
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.dead_runs import has_ended
from ingest_pipeline.document_events import report_documents


def report_late(instance: dg.DagsterInstance, corpus: Corpus) -> int:
    """Report what ended runs published and left unreported; returns how many publications."""
    with corpus.database.transaction() as connection:
        owed = ledger.unreported(connection, corpus.name)
    late = [saga for saga in owed if saga.run_id is not None and has_ended(instance, saga.run_id)]
    for saga in late:
        with corpus.database.transaction() as connection:
            changes = catalog.standing_changes(connection, saga.id)
        report_documents(instance, corpus, changes, _status(changes), instance.report_runless_asset_event)
        with corpus.database.transaction() as connection:
            ledger.mark_reported(connection, saga.id)
    return len(late)


def _status(changes: Sequence[DocumentChange]) -> str:
    target = changes[0].target_version if changes else None
    done = "published" if target is None else f"rolled back to version {target}"
    return f"{done} by a run that ended before it could say so"
