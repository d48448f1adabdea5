"""What a run keeps of a partition that several documents share: counts, and the first of its documents."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from ingest_pipeline.assets.shared_partitions import PartitionWork, shared_metadata
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog.documents import PartitionState
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.types import Chunk, Price, Recipe, SourceObject, Usage

_NOW = datetime(2026, 11, 1, tzinfo=UTC)
_PRICE = Price("model", Decimal(2), "EUR", _NOW.date())


def document(number: int) -> PreparedDocument:
    key = f"{number:03}.txt"
    plan = DocumentPlan(key, "folder/", SourceObject(key, f"etag-{number}", number, _NOW), None)
    preview = ChunkPreview(samples=[Chunk(0, 0, 1, key)])
    return PreparedDocument(plan, 10, 1, Usage(embedded=1, tokens=5), [], preview)


def publication(*documents: PreparedDocument, saga: int = 1) -> Publication:
    return Publication(UUID(int=saga), 1, 2, documents, [], Usage(), _PRICE, 0.0)


def test_only_the_first_documents_are_kept_and_all_are_counted() -> None:
    documents = [document(number) for number in range(100)]
    random.Random(1).shuffle(documents)
    work = PartitionWork()
    for number, one in enumerate(documents):
        work.publish(publication(one, saga=number), one)
    assert [row["key"] for row in work.rows] == [f"{number:03}.txt" for number in range(20)]
    assert [chunk.text for chunk in work.samples] == ["000.txt"]
    state = PartitionState("folder/", 100, 100, 1000, 4950, 2, "etag", "recipe", "digest")
    shown = shared_metadata(state, work, Recipe("p", "c", 10, 0, "model", 2), 0)
    assert shown["metadata"]["published"].value == 100
    assert shown["metadata"]["saga"].value == str(UUID(int=99))
    assert shown["embeddings"]["embedded"].value == 100
    assert shown["embeddings"]["tokens"].value == 500


def test_a_partition_of_which_documents_were_only_removed_lists_none() -> None:
    work = PartitionWork()
    work.remove(publication(saga=7))
    state = PartitionState("folder/", 0, 0, 0, 0, 2, "", "recipe", "digest")
    shown = shared_metadata(state, work, Recipe("p", "c", 10, 0, "model", 2), 0)
    assert "changed" not in shown["metadata"]
    assert (shown["metadata"]["removed"].value, shown["metadata"]["saga"].value) == (1, str(UUID(int=7)))
