"""Jobs of a storm's library writers, each in its own process."""

from __future__ import annotations

from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.postgres.database import Database
from tests.support.world import Address
from tests.support.world import ingest as ingest_documents


def ingest(address: Address, partitions: list[str] | None = None) -> tuple[list[int], list[str]]:
    """Bring the corpus up to date with the source; returns the acknowledged versions and the keys that failed."""
    with Database(address.database_url) as database:
        context = open_context(database, address.settings)
        summary = ingest_documents(context, address.embedding_settings, partitions)
    return [publication.version for publication in summary.publications], list(summary.failed)
