"""Touched objects: their ETag changed, but their bytes may be the same as before.

The bytes are read and compared. If they are the same, the document needs no publication, and only its new ETag is
recorded. If they changed, they are kept in memory until the document is prepared. So each object is read once.
"""

from __future__ import annotations

from ingest_pipeline.errors import DocumentError, StaleError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents, holds
from ingest_pipeline.types import SourceObject, column_tag, object_etag


class TouchedObjects:
    """Compares the bytes of touched objects with the hashes in the catalog.

    Args:
        context: The ingest context of the corpus.
    """

    def __init__(self, context: IngestContext) -> None:
        self._context = context

    def has_latest_bytes(self, plan: DocumentPlan) -> bool:
        """Whether the object has the bytes that are at head. Then its new ETag is recorded."""
        source, latest = plan.source, plan.latest
        if source is None or latest is None or latest.removed or not plan.maybe_same_bytes:
            return False
        if not _has_tag(latest.etag, source) or not self._has_hash(source, latest.content_hash):
            return False
        self.record(plan)
        return True

    def has_bytes_at_head(self, plan: DocumentPlan) -> bool:
        """Whether the object has the bytes at head, whatever the sources of its columns. Records nothing."""
        source, latest = plan.source, plan.latest
        if source is None or latest is None or latest.removed:
            return False
        if object_etag(latest.etag or "") == source.etag:
            return True
        return plan.maybe_same_bytes and self._has_hash(source, latest.content_hash)

    def record(self, plan: DocumentPlan) -> None:
        """Record the new ETag of a document that needs no publication."""
        assert plan.source is not None  # noqa: S101  the caller compared the two
        assert plan.latest is not None  # noqa: S101
        with self._context.corpus.database.transaction() as connection:
            documents.refresh_etag(connection, self._context.corpus.generation, plan.latest, plan.source)

    def has_bytes_on_hold(self, plan: DocumentPlan) -> bool:
        """Whether the object has the bytes that a rollback put on hold. Then its new ETag is recorded with the hold."""
        source, hold = plan.source, plan.hold
        if source is None or hold is None or hold.content_hash is None or hold.size != source.size:
            return False
        if not _has_tag(hold.etag, source):
            return False  # its columns changed since, and with them perhaps who may find it
        recipe = self._context.recipe.fingerprint_of(source.key)
        if hold.recipe != recipe or not self._has_hash(source, hold.content_hash):
            return False
        with self._context.corpus.database.transaction() as connection:
            holds.refresh_hold(connection, self._context.corpus.generation, source.key, source.document_etag)
        return True

    def _has_hash(self, source: SourceObject, content_hash: str | None) -> bool:
        try:
            has_hash = self._context.source.content_hash(source) == content_hash
        except (DocumentError, StaleError):
            return False  # preparing the document reports what is wrong with it
        if has_hash:
            self._context.source.discard(source)
        return has_hash


def _has_tag(etag: str | None, source: SourceObject) -> bool:
    """Whether the columns were made from the sources that the object has now."""
    return column_tag(etag or "") == source.column_tag
