"""Making right what an audit found wrong: the documents it names are published again, and no others.

Fragments that cannot be read go first, by their ids and in one publication, with all documents that had rows in them: a
scan of the table works again, and both stores say that these documents are not there. Then the documents are ingested.
Their vectors are found among what was recorded and in rows of the same text that can be read; the rest is bought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import Embedder
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.ingestion.estimate import Estimate, count
from ingest_pipeline.ingestion.ingest import Ingestion, Summary
from ingest_pipeline.lance.changes import Change, Removal
from ingest_pipeline.lance.damage import DamagedFragment
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.maintenance.audit import AuditReport
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres import catalog
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.saga.documents import publish_documents
from ingest_pipeline.saga.lifecycle import Saga


def foresee_repair(context: IngestContext, report: AuditReport) -> Estimate:
    """What a repair would take: reads and cuts the documents, and reads the vectors that are there. Buys nothing."""
    return count(context, _plans(context, _named(report)), read_vectors=True)


async def repair(context: IngestContext, embedder: Embedder, report: AuditReport) -> Summary:
    """Publish again each document that the report names; one that the source has no more is taken out of both stores.

    What names no document is not repaired here: `recover` settles sagas in doubt, `sweep` removes what is left over,
    and a head that does not open needs `recover --rebuild-catalog` or a backup.

    Args:
        context: Of the corpus that was audited.
        embedder: For texts whose vectors were lost.
        report: What was found.

    Raises:
        ConflictError: The damaged fragments changed since the audit; nothing was published.
        IngestError: The source, one of the stores or the API failed. What was repaired until then stays.
    """
    if report.damaged:
        take_out(context, report.damaged)
    return await Ingestion(context, embedder, search_for_rows=True).run(_plans(context, _named(report)))


def take_out(context: IngestContext, damaged: Sequence[DamagedFragment]) -> int:
    """Publish the table without some fragments and without the documents that had rows in them.

    Returns:
        The version.

    Raises:
        ConflictError: The fragments are not at head as they were; nothing was published.
        UnavailableError: One of the stores failed.
    """
    corpus = context.corpus
    head = corpus.head().head_version
    with Saga.begin(corpus, "ingest", base_version=head) as saga:
        with corpus.database.transaction() as connection:
            keys = list(catalog.documents_in(connection, corpus.generation, head, {one.number for one in damaged}))
            latest = catalog.latest_documents(connection, corpus.generation, keys=keys)
            plans = [DocumentPlan(document.key, document.partition, None, document) for document in latest]
            recipe = context.recipe.fingerprint
            catalog.insert_documents(
                connection, generation=corpus.generation, saga=saga.id, recipe=recipe, documents=plans
            )
        saga.prepared()
        return saga.publish(_TakenOut(corpus, saga.id, damaged, keys))


@dataclass(frozen=True, slots=True)
class _TakenOut:
    """Both sides of the publication."""

    corpus: Corpus
    saga: UUID
    damaged: Sequence[DamagedFragment]
    keys: Sequence[str]

    def write(self, connection: Connection, base: int, version: int) -> Change:
        numbers = frozenset(fragment.number for fragment in self.damaged)
        there = {number: state.signature for number, state in self.corpus.table.states(base, numbers).items()}
        concerned = catalog.documents_in(connection, self.corpus.generation, base, numbers)
        if there != {one.number: one.signature for one in self.damaged} or not concerned.keys() <= set(self.keys):
            raise ConflictError(
                f"Fragments {sorted(numbers)} of the table of corpus {self.corpus.name!r} changed since the audit",
                "Nothing was published. Run `ingest-pipeline audit --repair` again.",
            )
        publish_documents(connection, self.saga, version)
        # Wherever they are: a document may have other rows, in fragments that can be read.
        return Change((), Removal(one_of("document", self.keys)) if self.keys else None, numbers)

    def place(self, connection: Connection, fragments: dict[str, int]) -> None:
        """No row was added."""


def _named(report: AuditReport) -> list[str]:
    return sorted({violation.document for violation in report.violations if violation.document is not None})


def _plans(context: IngestContext, keys: list[str]) -> list[DocumentPlan]:
    with context.corpus.database.transaction() as connection:
        found = catalog.latest_documents(connection, context.corpus.generation, keys=keys)
    latest = {document.key: document for document in found}
    listed = {obj.key: obj for obj in context.listed(keys)}
    partition_of = context.scheme.partition_of
    return [DocumentPlan(key, partition_of(key), listed.get(key), latest.get(key)) for key in keys]
