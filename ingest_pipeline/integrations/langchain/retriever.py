"""Hits of a search as documents of LangChain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.integrations.hits import metadata_of, text_of
from ingest_pipeline.search.corpus_at_head import CorpusAtHead
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.types import SearchMode


class IngestPipelineRetriever(BaseRetriever):
    """Retrieves the chunks of a corpus that match a question best.

    For example::

        with open_corpus(config) as corpus:
            retriever = IngestPipelineRetriever(corpus=corpus, k=5)
            documents = retriever.invoke("Who approves travel?")

    A call may have its own `k`, `where` and `principals`: `retriever.invoke(question, principals=["everyone"])`.
    """

    corpus: OpenCorpus | CorpusAtHead
    """The corpus: at its present head, or pinned to one version."""
    k: int = 10
    """Maximum number of documents."""
    mode: SearchMode = "hybrid"
    where: Sequence[str] = ()
    principals: Sequence[str] | None = None
    expand: Expand | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,  # noqa: ARG002  LangChain's
        k: int | None = None,
        where: Sequence[str] | None = None,
        principals: Sequence[str] | None = None,
    ) -> list[Document]:
        hits = self.corpus.search(
            query,
            mode=self.mode,
            where=self.where if where is None else where,
            principals=self.principals if principals is None else principals,
            limit=self.k if k is None else k,
            expand=self.expand,
        )
        return [Document(id=hit.id, page_content=text_of(hit), metadata=metadata_of(hit)) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,  # noqa: ARG002  LangChain's
        k: int | None = None,
        where: Sequence[str] | None = None,
        principals: Sequence[str] | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, k=k, where=where, principals=principals)
