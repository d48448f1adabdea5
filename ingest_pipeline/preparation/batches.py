"""What travels between the stages of a preparation: batches of chunks, and the documents they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from uuid import UUID

from ingest_pipeline.columns.declaration import Values
from ingest_pipeline.columns.values import Value
from ingest_pipeline.errors import IngestError
from ingest_pipeline.lance.changes import StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog.prepared_documents import FinishedDocument
from ingest_pipeline.preparation.reading.document_reader import DocumentReader
from ingest_pipeline.preparation.reading.edits import DocumentEdit
from ingest_pipeline.preparation.reading.preview import ChunkPreview
from ingest_pipeline.preparation.seen_texts import OccurrenceCounter
from ingest_pipeline.preparation.vectors.requests import EmbeddingRequest, PendingVector
from ingest_pipeline.types import Chunk, Usage, chunk_id


@dataclass(slots=True)
class PreparedDocument:
    """A document whose rows are all staged."""

    plan: DocumentPlan
    characters: int
    chunks: int
    usage: Usage
    """What embedding it took. The seconds are those from its first byte read to its last row staged."""
    files: list[str]
    """Names of the data files that contain its rows."""
    preview: ChunkPreview
    """Kept until the publication is reported."""
    edit: DocumentEdit | None = None
    """What changes in its rows. None: all of them are replaced."""
    columns: Values = field(default_factory=dict[str, Value])
    """Values of its columns."""


@dataclass(slots=True)
class DocumentInProgress:
    """A document on its way through the stages."""

    plan: DocumentPlan
    reader: DocumentReader
    columns: Values = field(default_factory=dict[str, Value])
    """Values of its columns. Set before its first chunk reaches the next stage."""
    edit: DocumentEdit | None = None
    """What changes in the rows at head. None: all of them are replaced. Set like the columns."""
    error: IngestError | None = None
    """Why it cannot be ingested, if reading it failed. Set before the batch that ends it reaches the next stage."""
    failed: bool = False
    """Its rows are dropped, and the rest of its chunks is ignored."""
    rows: list[TableRow] = field(default_factory=list[TableRow])
    """Rows that are in no data file yet."""
    files: list[StagedFragment] = field(default_factory=list[StagedFragment])
    has_own_files: bool = False
    """It is too large to share data files with other documents."""
    texts: OccurrenceCounter = field(default_factory=OccurrenceCounter)
    chunks: int = 0
    """Chunks that got a vector so far."""
    preview: ChunkPreview = field(default_factory=ChunkPreview)
    _embedded: int = 0
    _tokens: int = 0
    _batches: dict[int, Usage] = field(default_factory=dict[int, Usage])
    _began: float = field(default_factory=perf_counter)
    _usage: Usage = field(default_factory=Usage)

    def count(self, chunk: Chunk, request: EmbeddingRequest | None) -> None:
        """Count a chunk whose vector has arrived.

        Args:
            chunk: The next chunk of the document.
            request: What was embedded for this chunk. None: its vector existed already.
        """
        self.chunks += 1
        self.preview.add(chunk)
        if request is not None:
            self._embedded += 1
            self._tokens += request.tokens
            self._batches[request.batch] = request.batch_usage

    @property
    def chunk_count(self) -> int:
        """Number of its chunks, those included that an edit only moves."""
        return self.chunks if self.edit is None else self.edit.chunk_count

    def id_of(self, chunk: Chunk, text_hash: UUID) -> UUID:
        """The id of the next chunk."""
        if self.edit is not None:
            return self.edit.ids[chunk.ordinal]
        return chunk_id(self.plan.key, text_hash, self.texts.count(text_hash))

    def finish(self) -> FinishedDocument:
        """What the catalog records once the whole document was read."""
        self._usage = Usage(
            self._embedded,
            self.chunk_count - self._embedded,
            self._tokens,
            sum(usage.requests for usage in self._batches.values()),
            sum(usage.retries for usage in self._batches.values()),
            perf_counter() - self._began,
        )
        return FinishedDocument(
            self.plan.key,
            self.reader.content_hash,
            self.reader.characters,
            self.chunk_count,
            self._usage,
            self.columns,
            self.reader.blocks,
        )

    def prepared(self, files: Sequence[StagedFragment]) -> PreparedDocument:
        """The result, once it is finished and all of its rows are in data files."""
        names = [file.name for file in files] if self.chunks else []
        return PreparedDocument(
            self.plan,
            self.reader.characters,
            self.chunk_count,
            self._usage,
            names,
            self.preview,
            self.edit,
            self.columns,
        )


@dataclass(slots=True)
class ChunkBatch:
    """About as many chunks as one request carries, of one document or several.

    Handing over batches instead of chunks makes threads, look-ups and queues cheaper.
    """

    documents: list[DocumentInProgress] = field(default_factory=list[DocumentInProgress])
    """The document of each chunk."""
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    vectors: Sequence[PendingVector] = ()
    """The vector of each chunk. The embed stage adds them."""
    ended: list[DocumentInProgress] = field(default_factory=list[DocumentInProgress])
    """Documents that have no chunks after this batch."""

    def add(self, document: DocumentInProgress, chunk: Chunk) -> None:
        """Add the next chunk of a document."""
        self.documents.append(document)
        self.chunks.append(chunk)

    def __iter__(self) -> Iterator[tuple[DocumentInProgress, Chunk, PendingVector]]:
        return zip(self.documents, self.chunks, self.vectors, strict=True)
