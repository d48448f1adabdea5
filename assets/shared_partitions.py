"""Metadata of a partition that several documents share."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import dagster as dg

from ingest_pipeline.assets.chunks import preview
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.postgres.catalog.documents import PartitionState
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.reporting.materializations import cost_metadata, usage_metadata
from ingest_pipeline.types import Chunk, Price, Recipe, Usage

_MAX_ROWS = 20
_Row = dict[str, str | int | float | bool | None]


@dataclass(slots=True)
class PartitionWork:
    """What one run did to a partition."""

    published: int = 0
    removed: int = 0
    usage: Usage = field(default_factory=Usage)
    saga: UUID | None = None
    """The last publication that changed it."""
    price: Price | None = None
    """The price of that publication's tokens."""
    rows: list[_Row] = field(default_factory=list[_Row])
    """The first of the documents, by key. Not all of them, which would be millions for a large corpus."""
    samples: list[Chunk] = field(default_factory=list[Chunk])
    """The first chunks of the first of the documents, by key."""
    _sampled: str | None = None

    def publish(self, publication: Publication, document: PreparedDocument) -> None:
        """Add a document that was published."""
        self.published += 1
        self.usage += document.usage
        self._add_row(document)
        self.saga, self.price = publication.saga, publication.price
        if self._sampled is None or document.plan.key <= self._sampled:
            self._sampled, self.samples = document.plan.key, document.preview.samples

    def remove(self, publication: Publication) -> None:
        """Count a document that was removed."""
        self.removed += 1
        self.saga, self.price = publication.saga, publication.price

    def _add_row(self, document: PreparedDocument) -> None:
        source = document.plan.source
        assert source is not None  # noqa: S101  a removal is not among the documents
        if len(self.rows) == _MAX_ROWS and source.key >= str(self.rows[-1]["key"]):
            return
        row: _Row = {"key": source.key, "etag": source.etag, "bytes": source.size, "chunks": document.chunks}
        insort(self.rows, row, key=lambda row: str(row["key"]))
        del self.rows[_MAX_ROWS:]


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
            "published": dg.MetadataValue.int(work.published),
            "removed": dg.MetadataValue.int(work.removed),
            "unreadable": dg.MetadataValue.int(unreadable),
            "size_bytes": dg.MetadataValue.int(state.bytes),
            **({"saga": dg.MetadataValue.text(str(work.saga))} if work.saga else {}),
            **({"changed": dg.MetadataValue.table(list(map(dg.TableRecord, work.rows)))} if work.rows else {}),
            **head,
        },
    }


def _spending(work: PartitionWork) -> Mapping[str, dg.MetadataValue]:
    usage, price = work.usage, work.price
    return {
        **usage_metadata(usage),
        **(cost_metadata("cost", price.cost(usage.tokens), price.currency) if price else {}),
    }
