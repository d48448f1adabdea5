"""Files in object storage become a searchable LanceDB table and a Postgres catalog that always agree.

This module is the public API. Its names are imported when they are used, so that scripts and `--help` do not import
modules that they do not need, such as Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest_pipeline import errors
    from ingest_pipeline.api import OpenCorpus, open_corpus
    from ingest_pipeline.chunking.base import Chunker, ExtractedDocument, Span
    from ingest_pipeline.config.corpus_config import CorpusConfig
    from ingest_pipeline.embedding.base import Embedder, Embeddings
    from ingest_pipeline.enrichment.base import (
        BilledError,
        ChunkEnricher,
        ChunkEnrichment,
        EnrichableChunk,
        EnrichableDocument,
        Enricher,
        Enrichment,
    )
    from ingest_pipeline.gates.base import Gate, PreparedVersion
    from ingest_pipeline.gates.golden_set import GoldenQuestion
    from ingest_pipeline.gates.scores import Scores
    from ingest_pipeline.orchestration.build import DagsterOptions, build_resources, corpus_definitions
    from ingest_pipeline.orchestration.component import IngestPipelineComponent
    from ingest_pipeline.parsing.base import ParsedDocument, Parser, RawDocument
    from ingest_pipeline.resources.catalog import PostgresCatalogResource
    from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
    from ingest_pipeline.resources.keys import CorpusResources
    from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
    from ingest_pipeline.resources.search import CorpusSearchResource
    from ingest_pipeline.resources.source import DocumentSourceResource
    from ingest_pipeline.search.base import Reranker
    from ingest_pipeline.search.corpus_at_head import CorpusAtHead
    from ingest_pipeline.types import TextPiece, Usage

__all__ = [
    "BilledError",
    "ChunkEnricher",
    "ChunkEnrichment",
    "Chunker",
    "CorpusAtHead",
    "CorpusConfig",
    "CorpusResources",
    "CorpusSearchResource",
    "DagsterOptions",
    "DocumentSourceResource",
    "Embedder",
    "Embeddings",
    "EnrichableChunk",
    "EnrichableDocument",
    "Enricher",
    "Enrichment",
    "ExtractedDocument",
    "Gate",
    "GoldenQuestion",
    "IngestPipelineComponent",
    "OpenAIEmbedderResource",
    "OpenCorpus",
    "ParsedDocument",
    "Parser",
    "PostgresCatalogResource",
    "PreparedVersion",
    "RawDocument",
    "Reranker",
    "Scores",
    "Span",
    "TextPiece",
    "Usage",
    "VersionedLanceDBResource",
    "build_resources",
    "corpus_definitions",
    "errors",
    "open_corpus",
]

_MODULES = {
    "Usage": "types",
    "TextPiece": "types",
    "RawDocument": "parsing.base",
    "Parser": "parsing.base",
    "ParsedDocument": "parsing.base",
    "Embedder": "embedding.base",
    "Embeddings": "embedding.base",
    "Enrichment": "enrichment.base",
    "Enricher": "enrichment.base",
    "EnrichableDocument": "enrichment.base",
    "EnrichableChunk": "enrichment.base",
    "ChunkEnricher": "enrichment.base",
    "ChunkEnrichment": "enrichment.base",
    "BilledError": "enrichment.base",
    "Reranker": "search.base",
    "Span": "chunking.base",
    "ExtractedDocument": "chunking.base",
    "Chunker": "chunking.base",
    "CorpusAtHead": "search.corpus_at_head",
    "CorpusConfig": "config.corpus_config",
    "CorpusResources": "resources.keys",
    "CorpusSearchResource": "resources.search",
    "DagsterOptions": "orchestration.build",
    "DocumentSourceResource": "resources.source",
    "Gate": "gates.base",
    "PreparedVersion": "gates.base",
    "GoldenQuestion": "gates.golden_set",
    "Scores": "gates.scores",
    "IngestPipelineComponent": "orchestration.component",
    "OpenAIEmbedderResource": "resources.embedder",
    "OpenCorpus": "api",
    "PostgresCatalogResource": "resources.catalog",
    "VersionedLanceDBResource": "resources.lancedb",
    "build_resources": "orchestration.build",
    "corpus_definitions": "orchestration.build",
    "open_corpus": "api",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("ingest_pipeline.errors")
    if name in _MODULES:
        return getattr(import_module(f"ingest_pipeline.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
