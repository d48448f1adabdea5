"""The clients that a search needs, as the settings name them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import Embedder
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.search.base import Reranker
from ingest_pipeline.search.rerank_endpoint import RerankEndpoint, RerankSettings
from ingest_pipeline.search.search import SearchMode


@asynccontextmanager
async def search_clients(
    config: CorpusConfig, corpus: Corpus, mode: SearchMode
) -> AsyncGenerator[tuple[Embedder | None, Reranker | None]]:
    """Open the embedder of a corpus, unless the search is by text, and the reranker, if one is configured."""
    async with AsyncExitStack() as clients:
        embedder: Embedder | None = None
        reranker: Reranker | None = None
        if mode != "text":
            embedder = await clients.enter_async_context(
                create_embedder(config.embedder_settings, corpus.head().embedding)
            )
        if config.rerank_url is not None:
            settings = RerankSettings(config.rerank_url, config.rerank_model, config.rerank_api_key)
            reranker = await clients.enter_async_context(RerankEndpoint(settings))
        yield embedder, reranker
