"""Reading at head: the chunks nearest to a question."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.corpus import Corpus
from ingest_pipeline.embedding import Embedder

_COLUMNS = ["id", "document", "partition", "ordinal", "start_offset", "end_offset", "text", "saga"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers, and where to find it."""

    document: str
    start_offset: int
    end_offset: int
    score: float
    """Cosine similarity to the question: 1 is the same direction."""
    text: str
    ordinal: int
    id: str
    saga: str
    version: int
    """The head that was read."""


async def search(corpus: Corpus, embedder: Embedder, question: str, limit: int) -> list[Hit]:
    """The nearest chunks at head, best first.

    Raises:
        EmbeddingUnavailableError, EmbeddingAccessError: The question could not be embedded.
    """
    answer = await embedder.embed([question])
    version = corpus.head().head_version
    rows = corpus.table.nearest(version, answer.vectors[0], limit, _COLUMNS).to_pylist()
    return [
        Hit(
            document=row["document"],
            start_offset=row["start_offset"],
            end_offset=row["end_offset"],
            score=1.0 - row["_distance"],
            text=row["text"],
            ordinal=row["ordinal"],
            id=row["id"],
            saga=row["saga"],
            version=version,
        )
        for row in rows
    ]
