"""A search with the clients that the settings of a corpus name. The command line and the Python API share it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.search.base import Reranker
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.rerank_endpoint import RerankEndpoint, RerankSettings
from ingest_pipeline.search.search import Hit, SearchMode, filter_at_head, search


async def configured_search(
    config: CorpusConfig,
    corpus: Corpus,
    question: str,
    limit: int,
    *,
    mode: SearchMode,
    conditions: Sequence[str],
    principals: Sequence[str] | None,
    expand: Expand | None,
) -> list[Hit]:
    """Search with the embedder of the corpus, unless the mode is ``text``, and the reranker, if one is configured.

    Args:
        config: Names the endpoints of the embedder and of the reranker.
        corpus: The corpus to search.
        question: The question in words.
        limit: Chunks at most.
        mode: See `search`.
        conditions: Conditions on the documents, as users write them.
        principals: See `search`.
        expand: See `search`.

    Raises:
        ConfigurationError: A condition is malformed, or see `search`.
    """
    where = filter_at_head(corpus, conditions)
    async with AsyncExitStack() as clients:
        embedder: EmbeddingClient | None = None
        reranker: Reranker | None = None
        if mode != "text":
            embedder = await clients.enter_async_context(
                create_embedder(config.embedder_settings, corpus.head().embedding)
            )
        if config.rerank_url is not None:
            settings = RerankSettings(config.rerank_url, config.rerank_model, config.rerank_api_key)
            reranker = await clients.enter_async_context(RerankEndpoint(settings))
        return await search(
            corpus,
            embedder,
            question,
            limit,
            mode=mode,
            where=where,
            principals=principals,
            expand=expand,
            reranker=reranker,
        )
