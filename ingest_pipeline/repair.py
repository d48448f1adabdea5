"""Making right what an audit found wrong: the documents it names are published again, and no others."""

from __future__ import annotations

from ingest_pipeline import catalog
from ingest_pipeline.audit import AuditReport
from ingest_pipeline.embedding import Embedder
from ingest_pipeline.ingestion import Ingestion, Summary
from ingest_pipeline.planning import DocumentPlan
from ingest_pipeline.preparation import Workshop


async def repair(workshop: Workshop, embedder: Embedder, report: AuditReport) -> Summary:
    """Publish again each document that the report names; one that the source has no more is taken out of both stores.

    What names no document is not repaired here: `recover` settles sagas in doubt, `sweep` removes what is left over,
    and a head that does not open needs a backup.

    Args:
        workshop: Of the corpus that was audited.
        embedder: For texts whose vectors were lost.
        report: What was found.

    Raises:
        IngestError: The source, one of the stores or the API failed. What was repaired until then stays.
    """
    keys = sorted({violation.document for violation in report.violations if violation.document is not None})
    return await Ingestion(workshop, embedder, search_for_rows=True).run(_plans(workshop, keys))


def _plans(workshop: Workshop, keys: list[str]) -> list[DocumentPlan]:
    with workshop.corpus.database.transaction() as connection:
        found = catalog.standing_documents(connection, workshop.corpus.name, keys=keys)
    standing = {document.key: document for document in found}
    listed = {obj.key: obj for obj in workshop.listed(keys)}
    partition_of = workshop.scheme.partition_of
    return [DocumentPlan(key, partition_of(key), listed.get(key), standing.get(key)) for key in keys]
