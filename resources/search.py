"""Searching a corpus from an asset, an op or a script."""

import asyncio
from collections.abc import Sequence

from dagster import ConfigurableResource, ResourceDependency

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.ingestion.context import named_corpus
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.search.filters import DocumentFilter, parse_filter
from ingest_pipeline.search.search import Hit, SearchMode, search


class CorpusSearchResource(ConfigurableResource[None]):
    """Reads corpora at head: by meaning, by words, or by both.

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
        limit: int = 10,
    ) -> list[Hit]:
        """The best chunks at head, best first.

        Args:
            corpus: Its name.
            question: In words.
            mode: By ``vector``, by the words of the ``text``, or ``hybrid``.
            where: Conditions on the documents to look into, such as ``key=policies/*`` or ``size>1000``; all hold.
            limit: Chunks, at most.

        Raises:
            ConfigurationError: There is no such corpus, its embedding is another one, or a condition says nothing.
            TextIndexMissingError: A search by words of a large corpus whose index was never built.
            UnavailableError: One of the stores, or the embedding API, does not answer.
        """
        conditions = parse_filter(where)
        with self.lancedb.catalog.connect() as database:
            found = named_corpus(database, corpus)
            return asyncio.run(self._search(found, question, limit, mode=mode, where=conditions))

    async def _search(
        self, corpus: Corpus, question: str, limit: int, *, mode: SearchMode, where: DocumentFilter
    ) -> list[Hit]:
        if mode == "text":
            return await search(corpus, None, question, limit, mode=mode, where=where)
        async with self.embedder.create_embedder(corpus.head().embedding) as embedder:
            return await search(corpus, embedder, question, limit, mode=mode, where=where)
