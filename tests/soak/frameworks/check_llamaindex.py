"""The retriever of LlamaIndex, alone and in a query engine."""

from __future__ import annotations

import asyncio

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, QueryBundle

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.integrations.llamaindex import IngestPipelineRetriever

QUESTION = "Receipts are kept"


def test_a_node_is_a_hit_with_its_citation(library: OpenCorpus) -> None:
    (hit,) = library.search(QUESTION, limit=1)
    retriever = IngestPipelineRetriever(library, similarity_top_k=1)
    assert isinstance(retriever, BaseRetriever)
    (found,) = retriever.retrieve(QUESTION)
    assert (found.node.node_id, found.text, found.score) == (hit.id, hit.text, hit.score)
    assert found.metadata["source"] == "guide.md"
    assert found.metadata["heading"] == "Expenses"
    assert (found.metadata["version"], found.metadata["saga"]) == (hit.version, hit.saga)
    shown = found.node.get_content(MetadataMode.LLM)
    assert "heading: Expenses" in shown
    assert "saga" not in shown


def test_async_calls_find_the_same(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(library, similarity_top_k=2)
    expected = [one.node.node_id for one in retriever.retrieve(QUESTION)]
    found = asyncio.run(retriever.aretrieve(QueryBundle(QUESTION)))
    assert [one.node.node_id for one in found] == expected
    assert len(expected) == 2


def test_principals_decide_what_is_retrieved(guarded: OpenCorpus) -> None:
    def sources(principals: list[str] | None) -> set[str]:
        retriever = IngestPipelineRetriever(guarded, principals=principals)
        return {one.metadata["source"] for one in retriever.retrieve("salaries")}

    assert sources(["board"]) == {"salaries.md"}
    assert sources(["nobody"]) == sources(None) == set()


def test_a_query_engine_gives_the_model_text_and_citation(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(library.at_head(), similarity_top_k=1, expand="neighbours")
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM())
    answer = engine.query(QUESTION)
    assert "Hotels are booked" in str(answer)
    assert answer.source_nodes[0].metadata["source"] == "guide.md"
