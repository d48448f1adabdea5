"""Names an ingestion in metrics and logs, and counts what became of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from ingest_pipeline.errors import IngestError, UnreadableError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.telemetry.metrics import CHUNKS, DOCUMENTS, LAG
from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.types import Usage


def named(context: IngestContext, run_id: str | None) -> AbstractContextManager[None]:
    """A block whose metrics and logs name the corpus and the run.

    Args:
        context: The open corpus.
        run_id: The Dagster run, if there is one.
    """
    corpus = context.corpus
    return scope(corpus=corpus.name, generation=corpus.generation, run=run_id or "")


def count_publication(documents: Sequence[PreparedDocument], removed: int) -> None:
    """Count what a publication changed.

    Args:
        documents: The published documents.
        removed: Number of removed documents.
    """
    now, usage = datetime.now(UTC), sum((document.usage for document in documents), Usage())
    DOCUMENTS.add(len(documents), outcome="published")
    DOCUMENTS.add(removed, outcome="removed")
    CHUNKS.add(usage.embedded, vectors="embedded")
    CHUNKS.add(usage.cached, vectors="cached")
    for document in documents:
        if (source := document.plan.source) is not None:
            LAG.record(max(0.0, (now - source.last_modified).total_seconds()))


def count_failure(error: IngestError) -> None:
    """Count a document that could not be ingested."""
    DOCUMENTS.add(1, outcome="unreadable" if isinstance(error, UnreadableError) else "failed")


def count_others(*, unchanged: int, on_hold: int, too_recent: int) -> None:
    """Count the documents that an ingestion did not have to change."""
    DOCUMENTS.add(unchanged, outcome="unchanged")
    DOCUMENTS.add(on_hold, outcome="on_hold")
    DOCUMENTS.add(too_recent, outcome="too_recent")
