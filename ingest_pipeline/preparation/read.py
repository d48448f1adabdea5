"""From the bytes of one document to its chunks, without holding the document in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.config.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.errors import DocumentTooLargeError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.formats import is_markdown, is_parsed, parse
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import Chunk, Recipe, SourceObject, TextPiece


class DocumentReader:
    """Reads one document once. Its counts and its hash are right when the last chunk was taken."""

    def __init__(self, source: SourceObject, recipe: Recipe) -> None:
        self.source = source
        self._recipe = recipe
        self.characters = 0
        """Of the text extracted so far."""
        self.chunk_count = 0
        self._digest = hashlib.sha256()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the bytes read so far, hexadecimal."""
        return self._digest.hexdigest()

    def chunks(self, store: ObjectSource, chunker: Chunker, limits: SpendingLimits = NO_LIMITS) -> Iterator[Chunk]:
        """The document's chunks, without reading ahead of what they need. An empty document has none.

        A document that may have too many chunks is counted before its first chunk is returned.

        Raises:
            DocumentTooLargeError: It has more chunks than the limits allow for a document.
            DocumentError: The document cannot be ingested as it is.
            DocumentChangedError: The object is not the one that was listed.
            SourceUnavailableError: The store does not answer.
        """
        key = self.source.key
        encoding = self._recipe.encoding
        step = chunker.size - chunker.overlap
        if not is_parsed(key) and limits.may_exceed_chunks(self.source.size, step):
            self._check(parse(key, store.read(self.source), encoding=encoding), chunker, limits)
        pieces: Iterable[TextPiece] = self._counted(
            parse(key, self._hashed(store.read(self.source)), encoding=encoding)
        )
        if is_parsed(key):
            pieces = list(pieces)  # the parser has the whole text in any case
            if limits.may_exceed_chunks(self.characters, step):
                self._check(pieces, chunker, limits)
        for chunk in chunker.chunks(pieces, markdown=is_markdown(key)):
            self.chunk_count += 1
            self._limit(self.chunk_count, limits)
            yield chunk

    def _check(self, pieces: Iterable[TextPiece], chunker: Chunker, limits: SpendingLimits) -> None:
        for count, _ in enumerate(chunker.chunks(pieces, markdown=is_markdown(self.source.key)), 1):
            self._limit(count, limits)

    def _limit(self, chunks: int, limits: SpendingLimits) -> None:
        most = limits.chunks_per_document
        if most is not None and chunks > most:
            raise DocumentTooLargeError(
                self.source.key,
                f"has more than {most} chunks",
                "Its published version is untouched. To ingest it, raise INGEST_MAX_CHUNKS (max_chunks of a component) "
                "and run `ingest-pipeline retry`. To exclude it, set INGEST_EXCLUDE.",
            )

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        with boundary(Boundary.SOURCE_READ):
            for block in blocks:
                self._digest.update(block)
                yield block

    def _counted(self, pieces: Iterable[TextPiece]) -> Iterator[TextPiece]:
        for piece in pieces:
            self.characters += len(piece.text)
            yield piece


def content_hash(store: ObjectSource, source: SourceObject) -> str:
    """SHA-256 of an object's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with boundary(Boundary.SOURCE_READ):
        for block in store.read(source):
            digest.update(block)
    return digest.hexdigest()
