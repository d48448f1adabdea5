"""Hits of a search as nodes of LlamaIndex."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.integrations.hits import metadata_of, score_of, text_of
from ingest_pipeline.search.corpus_at_head import CorpusAtHead
from ingest_pipeline.search.expand import Expand
from ingest_pipeline.search.search import Hit
from ingest_pipeline.types import SearchMode

# What a language model need not read.
_NOT_FOR_MODELS = ["start_offset", "end_offset", "score", "version", "published_version", "saga"]


class IngestPipelineRetriever(BaseRetriever):
    """Retrieves the chunks of a corpus that match a question best.

    For example::

        with open_corpus(config) as corpus:
            retriever = IngestPipelineRetriever(corpus, similarity_top_k=5)
            nodes = retriever.retrieve("Who approves travel?")

    Args:
        corpus: The corpus: at its present head, or pinned to one version.
        similarity_top_k: Maximum number of nodes.
        mode: See `OpenCorpus.search`, as are the rest.
        where: Conditions on the documents.
        principals: Find the documents that one of these may find.
        expand: The text that each node brings with it.
        callback_manager: LlamaIndex's.
    """

    def __init__(
        self,
        corpus: OpenCorpus | CorpusAtHead,
        *,
        similarity_top_k: int = 10,
        mode: SearchMode = "hybrid",
        where: Sequence[str] = (),
        principals: Sequence[str] | None = None,
        expand: Expand | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self._corpus = corpus
        self._similarity_top_k = similarity_top_k
        self._mode: SearchMode = mode
        self._where = where
        self._principals = principals
        self._expand: Expand | None = expand
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._corpus.search(
            query_bundle.query_str,
            mode=self._mode,
            where=self._where,
            principals=self._principals,
            limit=self._similarity_top_k,
            expand=self._expand,
        )
        return list(map(_node, hits))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: Hit) -> NodeWithScore:
    node = TextNode(
        id_=hit.id,
        text=text_of(hit),
        metadata=metadata_of(hit),
        excluded_llm_metadata_keys=_NOT_FOR_MODELS,
        excluded_embed_metadata_keys=_NOT_FOR_MODELS,
    )
    return NodeWithScore(node=node, score=score_of(hit))
