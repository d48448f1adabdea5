"""From the bytes of one document to its chunks, piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.errors import DocumentTooLargeError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.formats import is_markdown, is_parsed, parse
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.spending_limits import NO_LIMITS, SpendingLimits
from ingest_pipeline.types import Chunk, Recipe, SourceObject

# Chunks that travel together; small, so that the stages after this one start soon and hold little.
_PER_STRETCH = 128


class Reading:
    """A document being read. The counts are right once the last stretch was taken."""

    def __init__(self, source: SourceObject, recipe: Recipe) -> None:
        self.source = source
        self._recipe = recipe
        self.characters = 0
        self.chunks = 0
        self._digest = hashlib.sha256()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the bytes read so far, hexadecimal."""
        return self._digest.hexdigest()

    def stretches(
        self, store: ObjectSource, chunker: Chunker, limits: SpendingLimits = NO_LIMITS
    ) -> Iterator[list[Chunk]]:
        """The document's chunks, some at a time, reading no further than they need. An empty document has none.

        One that may have too many chunks is counted before the first of them is given out.

        Raises:
            DocumentTooLargeError: It has more chunks than a document may have.
            DocumentError: The document cannot be ingested as it is.
            DocumentChangedError: The object is not the one that was listed.
            SourceUnavailableError: The store does not answer.
        """
        key = self.source.key
        encoding = self._recipe.encoding
        step = chunker.size - chunker.overlap
        if not is_parsed(key) and limits.may_exceed_chunks(self.source.size, step):
            self._check(parse(key, store.read(self.source), encoding=encoding), chunker, limits)
        pieces: Iterable[str] = self._counted(parse(key, self._hashed(store.read(self.source)), encoding=encoding))
        if is_parsed(key):
            pieces = list(pieces)  # the parser gives the text as one piece
            if limits.may_exceed_chunks(self.characters, step):
                self._check(pieces, chunker, limits)
        chunks = iter(chunker.chunks(pieces, markdown=is_markdown(key)))
        while stretch := list(islice(chunks, _PER_STRETCH)):
            self.chunks += len(stretch)
            self._limit(self.chunks, limits)
            yield stretch

    def _check(self, pieces: Iterable[str], chunker: Chunker, limits: SpendingLimits) -> None:
        for count, _ in enumerate(chunker.chunks(pieces, markdown=is_markdown(self.source.key)), 1):
            self._limit(count, limits)

    def _limit(self, chunks: int, limits: SpendingLimits) -> None:
        most = limits.chunks_per_document
        if most is not None and chunks > most:
            raise DocumentTooLargeError(
                self.source.key,
                f"holds more than {most} chunks",
                "What was published before is untouched. If it is wanted, raise INGEST_MAX_CHUNKS (of a component: "
                "max_chunks) and run `ingest-pipeline retry`; if not, leave it out with INGEST_EXCLUDE.",
            )

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        with boundary(Boundary.SOURCE_READ):
            for block in blocks:
                self._digest.update(block)
                yield block

    def _counted(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            self.characters += len(piece)
            yield piece
