"""What Dagster's UI shows of the chunks of a document, collected while the document is prepared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ingest_pipeline.types import Chunk

BIN_CHARACTERS = 100
"""Width of a bin of the histogram."""
_MAX_SAMPLES = 3


@dataclass(slots=True)
class ChunkPreview:
    """The sizes of a document's chunks, and the first of them with their texts."""

    characters: int = 0
    """Sum of the sizes of the chunks. Exceeds the size of the document if chunks overlap."""
    bins: Counter[int] = field(default_factory=Counter[int])
    """Number of chunks by size, in bins of 100 characters numbered from 0."""
    samples: list[Chunk] = field(default_factory=list[Chunk])
    is_off: bool = False
    """Whether nothing is collected, because nothing shows it. The texts of thousands of documents would stay in memory
    until their publication."""

    def add(self, chunk: Chunk) -> None:
        """Count the next chunk."""
        if self.is_off:
            return
        size = chunk.end - chunk.start
        self.characters += size
        self.bins[size // BIN_CHARACTERS] += 1
        if len(self.samples) < _MAX_SAMPLES:
            self.samples.append(chunk)
