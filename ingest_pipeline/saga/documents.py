"""Documents in a publication: replace the rows at head by those of the saga."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ingest_pipeline.errors import ConflictError
from ingest_pipeline.lance.changes import Removal
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.postgres import documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.documents import Superseded
from ingest_pipeline.postgres.erasures import check_not_erased

_MAX_NAMED = 5


def publish_documents(connection: Connection, saga: UUID, version: int) -> list[Superseded]:
    """Make the saga's documents visible at a version, and return the rows that they replace.

    Raises:
        ConflictError: One of them was published by another saga after it was planned, or was erased.
    """
    check_not_erased(connection, saga)
    conflicts = documents.conflicting_documents(connection, saga)
    if conflicts:
        named = ", ".join(map(repr, conflicts[:_MAX_NAMED]))
        raise ConflictError(f"Another saga published {named} after this one planned it")
    return documents.publish_documents(connection, saga, version)


def removal_of(superseded: Sequence[Superseded]) -> Removal | None:
    """The removal of the table rows of replaced documents, as the catalog locates them. None if they have no rows."""
    with_rows = [document for document in superseded if document.chunk_count]
    if not with_rows:
        return None
    return Removal(
        one_of("document", [document.key for document in with_rows]),
        frozenset(number for document in with_rows for number in document.fragments),
        sum(document.chunk_count for document in with_rows),
    )
