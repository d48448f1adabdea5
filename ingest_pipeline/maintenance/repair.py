"""Repair: publishes exactly the documents again for which an audit found violations.

Unreadable fragments are removed first, by their ids and in one publication, with all documents that had rows in them: a
scan of the table works again, and both stores agree that these documents are missing. Then the documents are ingested.
Their vectors come from recorded batches and from readable rows with the same text; the other texts are embedded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.ingestion.estimate import Estimate, count
from ingest_pipeline.ingestion.ingest import Ingestion
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.lance.checks.damage import DamagedFragment
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.maintenance.audit import AuditReport
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents, prepared_documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.documents import supersede_documents
from ingest_pipeline.saga.lifecycle import Saga


def estimate_repair(context: IngestContext, report: AuditReport) -> Estimate:
    """Estimate a repair: read and chunk the documents, and look up their vectors. Embeds nothing."""
    return count(context, _plans(context, _named(report)), read_vectors=True)


async def repair(context: IngestContext, embedder: EmbeddingClient, report: AuditReport) -> Summary:
    """Publish the documents again that the report names, and remove those that the source no longer has.

    Other violations are not repaired here: `recover` settles sagas in doubt, `sweep` removes orphan files,
    and a head that does not open needs `recover --rebuild-catalog` or a backup.

    Args:
        context: The audited corpus.
        embedder: Embeds texts whose vectors were lost.
        report: The audit's report.

    Raises:
        ConflictError: The damaged fragments changed since the audit; nothing was published.
        IngestError: The source, one of the stores or the API failed. Documents that were repaired stay repaired.
    """
    if report.damaged:
        remove_damaged(context, report.damaged)
    return await Ingestion(context, embedder, search_for_rows=True).run(_plans(context, _named(report)))


def remove_damaged(context: IngestContext, damaged: Sequence[DamagedFragment]) -> int:
    """Publish the table without damaged fragments and without the documents that had rows in them.

    Returns:
        The published version.

    Raises:
        ConflictError: The fragments at head have changed; nothing was published.
        UnavailableError: One of the stores failed.
    """
    corpus = context.corpus
    head = corpus.head().head_version
    with Saga.begin(corpus, SagaKind.INGEST, base_version=head) as saga:
        with corpus.database.transaction() as connection:
            keys = list(documents.documents_in(connection, corpus.generation, head, {one.number for one in damaged}))
            latest = documents.latest_documents(connection, corpus.generation, keys=keys)
            plans = [DocumentPlan(document.key, document.partition, None, document) for document in latest]
            prepared_documents.insert_documents(
                connection, generation=corpus.generation, saga=saga.id, recipe=context.recipe, documents=plans
            )
        saga.prepared()
        return saga.publish(_DamageRemoval(corpus, saga.id, damaged, keys))


@dataclass(frozen=True, slots=True)
class _DamageRemoval:
    """The removal of damaged fragments: the change of the table and of the catalog."""

    corpus: Corpus
    saga: UUID
    damaged: Sequence[DamagedFragment]
    keys: Sequence[str]

    def write(self, connection: Connection, base: int, version: int) -> Change:
        numbers = frozenset(fragment.number for fragment in self.damaged)
        present = {number: state.signature for number, state in self.corpus.table.states(base, numbers).items()}
        concerned = documents.documents_in(connection, self.corpus.generation, base, numbers)
        if present != {one.number: one.signature for one in self.damaged} or not concerned.keys() <= set(self.keys):
            raise ConflictError(
                f"Fragments {sorted(numbers)} of the table of corpus {self.corpus.name!r} changed since the audit",
                "Nothing was published. Run `ingest-pipeline audit --repair` again.",
            )
        supersede_documents(connection, self.saga, version)
        documents.publish_documents(connection, self.saga, version, {})
        # The removal covers the whole table: a document may have other rows in readable fragments.
        return Change((), Removal(one_of("document", self.keys)) if self.keys else None, numbers)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """No row was added."""


def _named(report: AuditReport) -> list[str]:
    return sorted({violation.document for violation in report.violations if violation.document is not None})


def _plans(context: IngestContext, keys: list[str]) -> list[DocumentPlan]:
    with context.corpus.database.transaction() as connection:
        found = documents.latest_documents(connection, context.corpus.generation, keys=keys)
    latest = {document.key: document for document in found}
    listed = {obj.key: obj for obj in context.listed(keys)}
    partition_of = context.scheme.partition_of
    return [DocumentPlan(key, partition_of(key), listed.get(key), latest.get(key)) for key in keys]
