"""The search in a corpus as a resource, for assets, ops and scripts."""

from collections.abc import Sequence

from dagster import ConfigurableResource, ResourceDependency

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.event_loop import run_blocking
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.filters import DocumentFilter
from ingest_pipeline.search.search import Hit, SearchMode, filter_at_head, search


class CorpusSearchResource(ConfigurableResource[None]):
    """Searches corpora at head: by meaning, by words, or by both.

    For example::

    hits = corpus_search.search("handbook", "Who approves travel?", mode="hybrid", where=["key=policies/*"])
    """

    lancedb: ResourceDependency[VersionedLanceDBResource]
    embedder: ResourceDependency[OpenAIEmbedderResource]

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

        Raises:
            ConfigurationError: The corpus does not exist or has another embedding, or a condition is invalid.
            TextIndexMissingError: A search by words needs an index that was never built for this large corpus.
            UnavailableError: One of the stores, or the embedding API, does not answer.
        """
        with self.lancedb.catalog.connect() as database:
            found = named_corpus(database, corpus)
            conditions = filter_at_head(found, where)
            return run_blocking(
                self._search(found, question, limit, mode=mode, where=conditions, principals=principals, expand=expand)
            )

    async def _search(
        self,
        corpus: Corpus,
        question: str,
        limit: int,
        *,
        mode: SearchMode,
        where: DocumentFilter,
        principals: Sequence[str] | None,
        expand: Expand | None,
    ) -> list[Hit]:
        if mode == "text":
            return await search(
                corpus, None, question, limit, mode=mode, where=where, principals=principals, expand=expand
            )
        async with self.embedder.create_embedder(corpus.head().embedding) as embedder:
            return await search(
                corpus, embedder, question, limit, mode=mode, where=where, principals=principals, expand=expand
            )
