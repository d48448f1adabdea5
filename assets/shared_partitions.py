"""Metadata of a partition that several documents share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ingest_pipeline.assets.chunks import preview
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.postgres.catalog.documents import PartitionState
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.reporting.materializations import cost_metadata, usage_metadata
from ingest_pipeline.types import Chunk, Recipe, Usage

_MAX_ROWS = 20


@dataclass(slots=True)
class PartitionWork:
    """What one run did to a partition."""

    documents: list[PreparedDocument] = field(default_factory=list[PreparedDocument])
    removed: int = 0
    last: Publication | None = None
    """The last publication that changed it."""
    samples: list[Chunk] = field(default_factory=list[Chunk])
    """The first chunks of the first of the documents, by key."""
    _sampled: str | None = None

    def publish(self, publication: Publication, document: PreparedDocument) -> None:
        """Add a document that was published."""
        self.documents.append(document)
        self.last = publication
        if self._sampled is None or document.plan.key <= self._sampled:
            self._sampled, self.samples = document.plan.key, document.preview.samples

    def remove(self, publication: Publication) -> None:
        """Count a document that was removed."""
        self.removed += 1
        self.last = publication


def shared_metadata(
    state: PartitionState, work: PartitionWork, recipe: Recipe, unreadable: int
) -> dict[str, Mapping[str, dg.MetadataValue]]:
    """The metadata of each of the three assets."""
    counts = {"documents": dg.MetadataValue.int(state.documents), "chunks": dg.MetadataValue.int(state.chunks)}
    head = {"head": dg.MetadataValue.int(state.published_version)}
    return {
        "chunks": {
            **counts,
            "dagster/partition_row_count": dg.MetadataValue.int(state.chunks),
            "characters": dg.MetadataValue.int(state.characters),
            "characters_per_chunk": dg.MetadataValue.float(
                round(state.characters / state.chunks, 1) if state.chunks else 0.0
            ),
            **({"preview": preview(work.samples)} if work.samples else {}),
        },
        "embeddings": {
            **counts,
            **_spending(work),
            "model": dg.MetadataValue.text(recipe.embedding_model),
            "dimensions": dg.MetadataValue.int(recipe.embedding_dimensions),
            **head,
        },
        "metadata": {
            **counts,
            "published": dg.MetadataValue.int(len(work.documents)),
            "removed": dg.MetadataValue.int(work.removed),
            "unreadable": dg.MetadataValue.int(unreadable),
            "size_bytes": dg.MetadataValue.int(state.bytes),
            **({"saga": dg.MetadataValue.text(str(work.last.saga))} if work.last else {}),
            **({"changed": dg.MetadataValue.table(_rows(work.documents))} if work.documents else {}),
            **head,
        },
    }


def _spending(work: PartitionWork) -> Mapping[str, dg.MetadataValue]:
    documents = work.documents
    usage = sum((document.usage for document in documents), Usage())
    price = work.last.price if work.last else None
    return {
        **usage_metadata(usage),
        **(cost_metadata("cost", price.cost(usage.tokens), price.currency) if price else {}),
    }


def _rows(documents: Sequence[PreparedDocument]) -> list[dg.TableRecord]:
    rows: list[dg.TableRecord] = []
    for document in sorted(documents, key=lambda document: document.plan.key)[:_MAX_ROWS]:
        source = document.plan.source
        assert source is not None  # noqa: S101  a removal is not among the documents
        row: dict[str, str | int | float | bool | None] = {
            "key": source.key,
            "etag": source.etag,
            "bytes": source.size,
            "chunks": document.chunks,
        }
        rows.append(dg.TableRecord(row))
    return rows
