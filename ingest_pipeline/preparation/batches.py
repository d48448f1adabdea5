"""What travels between the stages of a preparation: documents in progress, cut into stretches, and parcels of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from ingest_pipeline.errors import IngestError
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.documents import FinishedDocument
from ingest_pipeline.preparation.preview import ChunkPreview
from ingest_pipeline.preparation.read import Reading
from ingest_pipeline.preparation.seen_texts import OccurrenceCounter
from ingest_pipeline.preparation.vectors import Order, Wanted
from ingest_pipeline.types import Chunk, Usage


@dataclass(slots=True)
class PreparedDocument:
    """A document whose rows are staged."""

    plan: DocumentPlan
    characters: int = 0
    chunks: int = 0
    usage: Usage = field(default_factory=Usage)
    """Its seconds count from the first byte read to the last row staged."""
    files: list[str] = field(default_factory=list[str])
    preview: ChunkPreview = field(default_factory=ChunkPreview)
    """Kept until the publication is reported."""
    _batches: set[int] = field(default_factory=set[int])

    def count(self, chunk: Chunk, wanted: Wanted | None) -> None:
        """Count a chunk whose vector is there, and what was paid for it, if anything was."""
        self.chunks += 1
        self.preview.add(chunk)
        if wanted is None:
            self.usage += Usage(cached=1)
            return
        of_batch = Usage()
        if wanted.batch not in self._batches:
            self._batches.add(wanted.batch)
            of_batch = wanted.batch_usage
        self.usage += Usage(1, 0, wanted.tokens, of_batch.requests, of_batch.retries)


@dataclass(slots=True)
class DocumentInProgress:
    """A document on its way through the stages."""

    plan: DocumentPlan
    reading: Reading
    result: PreparedDocument
    texts: OccurrenceCounter = field(default_factory=OccurrenceCounter)
    waiting: list[TableRow] = field(default_factory=list[TableRow])
    files: list[StagedFragment] = field(default_factory=list[StagedFragment])
    has_own_files: bool = False
    failed: bool = False
    began: float = field(default_factory=perf_counter)

    def facts(self) -> FinishedDocument:
        """What the catalog is told at the end."""
        result = self.result
        result.usage = replace(result.usage, seconds=perf_counter() - self.began)
        return FinishedDocument(
            self.plan.key, self.reading.content_hash, result.characters, result.chunks, result.usage
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some chunks of a document in progress, and the end of it if they are the last."""

    document: DocumentInProgress
    chunks: Sequence[Chunk]
    orders: Sequence[Order] = ()
    last: bool = False
    error: IngestError | None = None


Parcel = list[Stretch]


def parcels(stretches: Iterator[Stretch], size: int) -> Iterator[Parcel]:
    """Stretches in parcels of ``size`` chunks or a stretch more; the last may be smaller."""
    parcel: Parcel = []
    count = 0
    for stretch in stretches:
        parcel.append(stretch)
        count += len(stretch.chunks)
        if count >= size:
            yield parcel
            parcel, count = [], 0
    if parcel:
        yield parcel
