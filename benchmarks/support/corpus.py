"""The settings of the corpus that a benchmark ingests into."""

from __future__ import annotations

from pathlib import Path

from benchmarks.support.endpoint import DIMENSIONS, MODEL
from ingest_pipeline.config.corpus_config import CorpusConfig


def corpus_config(source: Path | str, lancedb: Path | str, dimensions: int = DIMENSIONS) -> CorpusConfig:
    """Settings without limits on chunks and tokens, which would end a run before all is ingested."""
    return CorpusConfig(
        corpus="documents",
        source=str(source),
        lancedb_uri=str(lancedb),
        embedding_model=MODEL,
        embedding_dimensions=dimensions,
        max_chunks=0,
        max_tokens_per_run=0,
        max_tokens_per_day=0,
    )
