"""A search with the clients that settings name. The command line, the Python API and the resource share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.embedding.create import create_embedder
from ingest_pipeline.search.base import Reranker
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.rerank_endpoint import RerankEndpoint, RerankSettings
from ingest_pipeline.search.search import Hit, filter_at_head, search
from ingest_pipeline.search.user_reranker import load_reranker
from ingest_pipeline.types import SearchMode


@dataclass(frozen=True, slots=True)
class SearchClients:
    """What a search opens and closes."""

    create_embedder: Callable[[str | None], EmbeddingClient]
    """Creates the embedder for a corpus' model, dimensions and prompt. Not called if the mode is ``text``."""
    rerank: RerankSettings | None = None
    """The endpoint that decides the order of the hits."""
    reranker: Reranker | None = None
    """A reranker of the user, or one that is open already, instead of the endpoint."""

    @classmethod
    def of(cls, config: CorpusConfig) -> Self:
        """The clients that the settings of a corpus name."""
        endpoint = None
        if config.rerank_url is not None:
            endpoint = RerankSettings(config.rerank_url, config.rerank_model, config.rerank_api_key)
        return cls(partial(create_embedder, config.embedder_settings), endpoint, load_reranker(config.reranker))


async def configured_search(
    clients: SearchClients,
    corpus: Corpus,
    question: str,
    limit: int,
    *,
    mode: SearchMode,
    conditions: Sequence[str],
    principals: Sequence[str] | None,
    expand: Expand | None,
) -> list[Hit]:
    """Search with clients that are open for this search only.

    Args:
        clients: The embedder and the reranker.
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
    async with AsyncExitStack() as opened:
        embedder: EmbeddingClient | None = None
        reranker = clients.reranker
        if mode != "text":
            embedder = await opened.enter_async_context(clients.create_embedder(corpus.head().embedding))
        if reranker is None and clients.rerank is not None:
            reranker = await opened.enter_async_context(RerankEndpoint(clients.rerank))
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
