"""The search in a corpus as a resource, for assets, ops and scripts."""

from collections.abc import Sequence

from dagster import ConfigurableResource, ResourceDependency
from pydantic import Field

from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.search.base import Reranker
from ingest_pipeline.search.configured_search import SearchClients, configured_search
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.rerank_endpoint import RerankSettings
from ingest_pipeline.search.search import Hit
from ingest_pipeline.types import SearchMode


class CorpusSearchResource(ConfigurableResource[None]):
    """Searches corpora at head: by meaning, by words, or by both.

    For example::

    hits = corpus_search.search("handbook", "Who approves travel?", mode="hybrid", where=["key=policies/*"])
    """

    lancedb: ResourceDependency[VersionedLanceDBResource]
    embedder: ResourceDependency[OpenAIEmbedderResource]
    rerank_url: str | None = Field(
        default=None, description="Address of a reranker that decides the order of the hits. Default: none."
    )
    rerank_model: str | None = Field(default=None, description="Its model, unless it serves one model only.")
    rerank_api_key: str | None = Field(default=None, description="Its key, if it needs one; give it as an EnvVar.")

    def search(
        self,
        corpus: str,
        question: str,
        *,
        mode: SearchMode = "hybrid",
        where: Sequence[str] = (),
        principals: Sequence[str] | None = None,
        limit: int = 10,
        expand: Expand | None = None,
        reranker: Reranker | None = None,
    ) -> list[Hit]:
        """Find the best chunks at head, best first.

        Args:
            corpus: Name of the corpus.
            question: The question in words.
            mode: ``vector`` for meaning, ``text`` for words, or ``hybrid`` for both.
            where: Conditions such as ``key=policies/*``, ``size>1000`` or ``year>=2020``. A document must meet all of
                them.
            principals: Search the documents that one of these may find. If access to the corpus is restricted, a search
                without principals finds nothing.
            limit: Maximum number of chunks.
            expand: The text that each chunk brings with it: its ``neighbours``, or the whole ``section``.
            reranker: Decides the order of the hits, instead of the endpoint `rerank_url`.

        Raises:
            ConfigurationError: The corpus does not exist or has another embedding, or a condition is invalid.
            TextIndexMissingError: A search by words needs an index that was never built for this large corpus.
            UnavailableError: One of the stores, the embedding API or the reranker does not answer.
            RerankerAccessError, RerankerResponseError: The reranker gave no scores.
        """
        endpoint = None
        if self.rerank_url is not None:
            endpoint = RerankSettings(self.rerank_url, self.rerank_model, self.rerank_api_key)
        clients = SearchClients(self.embedder.create_embedder, endpoint, reranker)
        with self.lancedb.catalog.connect() as database:
            return run_blocking(
                configured_search(
                    clients,
                    named_corpus(database, corpus),
                    question,
                    limit,
                    mode=mode,
                    conditions=where,
                    principals=principals,
                    expand=expand,
                )
            )
