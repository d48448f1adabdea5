"""An embedder without a model."""

import zlib
from collections.abc import Sequence

import numpy as np


class HashedWords:
    """Counts words by their hashes: texts that share words are near each other."""

    batch_size = 64

    def __init__(self, dimensions: int = 256) -> None:
        self.dimensions = dimensions
        self.fingerprint = f"hashed-words-1-{dimensions}"

    def embed_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Embed texts of documents."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> np.ndarray:
        """Embed a question, which needs nothing besides its words."""
        vector = np.full(self.dimensions, 1e-3)  # a text without words has a vector too
        for word in text.lower().split():
            vector[zlib.crc32(word.strip(".,:;?!").encode()) % self.dimensions] += 1
        return vector / np.linalg.norm(vector)
