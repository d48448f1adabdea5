"""From the bytes of one document to its chunks, piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

from ingest_pipeline.chunking import Chunker
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.model import Chunk, SourceObject
from ingest_pipeline.parsing import is_markdown, parse
from ingest_pipeline.source import ObjectSource

# Chunks that travel together; small, so that the stages after this one start soon and hold little.
_PER_STRETCH = 128


class Reading:
    """A document being read. The counts are right once the last stretch was taken."""

    def __init__(self, source: SourceObject) -> None:
        self.source = source
        self.characters = 0
        self.chunks = 0
        self._digest = hashlib.sha256()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the bytes read so far, hexadecimal."""
        return self._digest.hexdigest()

    def stretches(self, store: ObjectSource, chunker: Chunker) -> Iterator[list[Chunk]]:
        """The document's chunks, some at a time, reading no further than they need. An empty document has none.

        Raises:
            DocumentError: The document cannot be ingested as it is.
            DocumentChangedError: The object is not the one that was listed.
            SourceUnavailableError: The store does not answer.
        """
        key = self.source.key
        pieces = self._counted(parse(key, self._hashed(store.read(self.source))))
        chunks = iter(chunker.chunks(pieces, markdown=is_markdown(key)))
        while stretch := list(islice(chunks, _PER_STRETCH)):
            self.chunks += len(stretch)
            yield stretch

    def _hashed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        with boundary(Boundary.SOURCE_READ):
            for block in blocks:
                self._digest.update(block)
                yield block

    def _counted(self, pieces: Iterable[str]) -> Iterator[str]:
        for piece in pieces:
            self.characters += len(piece)
            yield piece


def content_hash(store: ObjectSource, source: SourceObject) -> str:
    """SHA-256 of an object's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with boundary(Boundary.SOURCE_READ):
        for block in store.read(source):
            digest.update(block)
    return digest.hexdigest()
