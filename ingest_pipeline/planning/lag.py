"""How far head is behind the source: what a comparison of the whole source found, recorded for monitors."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import reports


def oldest_change(plans: Iterable[DocumentPlan]) -> datetime | None:
    """When the oldest change among the new and changed objects was made. None: there is none whose time is known.

    A document that differs by its recipe alone has no time of a change, and neither has one that the source lacks.
    """
    return min(
        (
            plan.source.last_modified
            for plan in plans
            if plan.source is not None and (plan.latest is None or plan.latest.etag != plan.source.document_etag)
        ),
        default=None,
    )


def record_comparison(corpus: Corpus, behind: int, oldest: datetime | None = None) -> None:
    """Record that the whole source was compared with head. Without a corpus, nothing is recorded.

    Args:
        corpus: The corpus.
        behind: Number of documents that differ, without those on hold and those that cannot be read.
        oldest: When the oldest of these changes was made, if that is known.
    """
    with corpus.database.transaction() as connection:
        reports.record_comparison(connection, corpus.generation, behind=behind, oldest=oldest)
