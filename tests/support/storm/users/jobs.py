"""Jobs of a storm's library writers, each in its own process."""

from __future__ import annotations

from uuid import UUID

from ingest_pipeline.erasure.unfinished import continue_erasures
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.saga.blocked import drop_publication, release_publication
from tests.support.crash import jobs as crash_jobs
from tests.support.world import Address
from tests.support.world import ingest as ingest_documents


def ingest(address: Address, partitions: list[str] | None = None) -> tuple[list[int], list[str]]:
    """Bring the corpus up to date; returns the acknowledged versions, and the keys that failed or are blocked."""
    with Database(address.database_url) as database:
        context = open_context(database, address.settings)
        summary = ingest_documents(context, address.embedding_settings, partitions)
    blocked = [plan.key for one in summary.blocked for plan in one.plans]
    return [publication.version for publication in summary.publications], [*summary.failed, *blocked]


def recover(address: Address, silence: float) -> int:
    """Settle the sagas of other writers and finish their erasures, as a user does; returns head."""
    head = crash_jobs.recover(address, silence)
    with Database(address.database_url) as database:
        continue_erasures(open_context(database, address.settings).corpus)
    return head


def release(address: Address, saga: UUID) -> int:
    """Release a blocked publication; returns the published version."""
    with Database(address.database_url) as database:
        return release_publication(open_context(database, address.settings).corpus, saga)


def drop(address: Address, saga: UUID) -> None:
    """Drop a blocked publication."""
    with Database(address.database_url) as database:
        drop_publication(open_context(database, address.settings).corpus, saga)
