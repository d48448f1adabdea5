"""Documents in a publication: replace the rows at head by those of the saga."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.errors import ConflictError
from ingest_pipeline.lance.changes import Change, Removal, StagedFragment, either
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.moves import Edit, StagedMoves
from ingest_pipeline.postgres.catalog import documents, gates, holds
from ingest_pipeline.postgres.catalog.documents import Superseded
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache, failures, sagas
from ingest_pipeline.postgres.ledger.erasures import check_not_erased

_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class DocumentRows:
    """Both sides of the publication of documents that were ingested."""

    generation: str
    saga: UUID
    staged: Sequence[StagedFragment]
    files: Mapping[str, Sequence[str]]
    """Names of the data files of each document."""
    removed: Sequence[str]
    """Keys of the documents that are removed."""
    schema: pa.Schema
    """The columns with which the data files were written."""
    forgets_vectors: bool = True
    """Whether all vectors of the saga are in the version. Those of a failed document are kept for its next attempt."""
    search_for_rows: bool = False
    """Remove old rows by a search of the whole table, instead of where the catalog locates them."""
    edits: StagedMoves = field(default_factory=StagedMoves)
    """What edits of documents change in rows that stay."""
    spooled: list[str] = field(default_factory=list[str])
    """Files of the spool that are not needed after the publication."""

    @property
    def keys(self) -> list[str]:
        """Keys of all documents that the publication changes."""
        return [*self.files, *self.removed]

    def write(self, connection: Connection, base: int, version: int) -> Change:  # noqa: ARG002  of the protocol
        """Write the catalog rows, and return the change of the table."""
        superseded = supersede_documents(connection, self.saga, version)
        failures.clear_failures(connection, self.generation, self.keys)
        holds.release_superseded(connection, self.saga)
        sagas.forget_fragments(connection, self.saga)
        if self.forgets_vectors:
            self.spooled[:] = [spool_name(self.saga, n) for n in embedding_cache.forget_batches(connection, self.saga)]
        return Edit(self.staged, self._removal(superseded), schema=self.schema, moved=self.edits.files)

    def _removal(self, superseded: Sequence[Superseded]) -> Removal | None:
        if self.search_for_rows:
            return Removal(one_of("document", self.keys))
        replaced = [document for document in superseded if document.key not in self.edits.documents]
        return either(removal_of(replaced), self.edits.removed)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """Make the documents visible at a version, each with the fragments that contain it."""
        stay = self.edits.fragments
        recorded = {
            key: sorted({*(fragments[name] for name in names), *stay.get(key, ())}) for key, names in self.files.items()
        }
        documents.publish_documents(connection, self.saga, version, recorded)


def supersede_documents(connection: Connection, saga: UUID, version: int) -> list[Superseded]:
    """End the rows at head that the saga's documents replace at a version, and return them.

    Raises:
        ConflictError: A document was published by another saga after it was planned, or was erased.
    """
    check_not_erased(connection, saga)
    conflicts = documents.conflicting_documents(connection, saga)
    if conflicts:
        named = ", ".join(map(repr, conflicts[:_MAX_NAMED]))
        raise ConflictError(f"Another saga published {named} after this one planned it")
    gates.overtake(connection, saga)
    return documents.supersede_documents(connection, saga, version)


def removal_of(superseded: Sequence[Superseded]) -> Removal | None:
    """The removal of the table rows of replaced documents, as the catalog locates them. None if they have no rows."""
    with_rows = [document for document in superseded if document.chunk_count]
    if not with_rows:
        return None
    keys: defaultdict[int, list[str]] = defaultdict(list)
    for document in with_rows:
        for number in document.fragments:
            keys[number].append(document.key)
    return Removal(
        one_of("document", [document.key for document in with_rows]),
        {number: one_of("document", found) for number, found in keys.items()},
        sum(document.chunk_count for document in with_rows),
    )
