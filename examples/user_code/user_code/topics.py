"""An enricher of chunks: the heading of each is its topic."""

from collections.abc import Mapping, Sequence

from ingest_pipeline import EnrichableChunk


class Topics:
    """Names the topic of a chunk by its heading."""

    fingerprint = "topics-1"

    def enrich_chunks(self, chunks: Sequence[EnrichableChunk]) -> Sequence[Mapping[str, object]]:
        """The columns of each chunk, in the same order."""
        return [{"topic": chunk.heading} for chunk in chunks]
