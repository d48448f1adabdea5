"""The retriever of LangChain. `make soak` runs LangChain's own tests for retrievers too."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from ingest_pipeline.api import OpenCorpus
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.integrations.langchain import IngestPipelineRetriever

QUESTION = "Receipts are kept"
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "langchain.md"


def test_a_document_is_a_hit_with_its_citation(library: OpenCorpus) -> None:
    (hit,) = library.search(QUESTION, limit=1)
    (document,) = IngestPipelineRetriever(corpus=library, k=1).invoke(QUESTION)
    assert (document.id, document.page_content) == (hit.id, hit.text)
    assert document.metadata == {
        "source": "guide.md",
        "page": None,
        "last_page": None,
        "heading": "Expenses",
        "start_offset": hit.start_offset,
        "end_offset": hit.end_offset,
        "score": pytest.approx(hit.score),
        "version": hit.version,
        "published_version": hit.published_version,
        "saga": hit.saga,
    }


def test_the_arguments_of_a_call_replace_those_of_the_retriever(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(corpus=library, k=1, mode="text")
    assert len(retriever.invoke("salaries receipts hotels", k=3)) == 3
    assert {one.metadata["source"] for one in retriever.invoke("salaries", where=["key=unlisted*"])} == {"unlisted.md"}


def test_an_expanded_hit_has_the_text_around_it(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(corpus=library.at_head(), k=1, expand="neighbours")
    (document,) = retriever.invoke(QUESTION)
    assert document.page_content.startswith("# Travel")
    assert (document.metadata["start_offset"], document.metadata["heading"]) == (0, "Expenses")


def test_principals_decide_what_is_retrieved(guarded: OpenCorpus) -> None:
    board = IngestPipelineRetriever(corpus=guarded, principals=["board"])
    assert {one.metadata["source"] for one in board.invoke("salaries")} == {"salaries.md"}
    assert board.invoke("salaries")[0].metadata["readers"] == ["board"]
    assert {one.metadata["source"] for one in board.invoke("salaries", principals=["everyone"])} == {"guide.md"}
    assert board.invoke("salaries", principals=[]) == []
    assert IngestPipelineRetriever(corpus=guarded).invoke("salaries") == []


def test_async_calls_and_batches_find_the_same(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(corpus=library, k=2)
    expected = retriever.invoke(QUESTION)
    assert asyncio.run(retriever.ainvoke(QUESTION)) == expected
    assert asyncio.run(retriever.abatch([QUESTION, QUESTION])) == [expected, expected]
    assert retriever.batch([QUESTION]) == [expected]


def test_an_error_keeps_its_message(library: OpenCorpus) -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        IngestPipelineRetriever(corpus=library, where=["colour=red"]).invoke("x")


def test_a_chain_gets_the_texts(library: OpenCorpus) -> None:
    retriever = IngestPipelineRetriever(corpus=library, k=1)
    prompt = ChatPromptTemplate.from_template("{context} Question: {question}")

    def joined(found: list[Document]) -> str:
        return " ".join(one.page_content for one in found)

    chain = {"context": retriever | joined, "question": RunnablePassthrough[str]()} | prompt
    assert "kept for a year" in chain.invoke(QUESTION).to_string()


def test_the_program_of_the_page_runs(
    library: OpenCorpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = library.config
    for name in ("source", "lancedb_uri", "database_url", "embedding_model"):
        monkeypatch.setenv(f"INGEST_{name.upper()}", str(getattr(config, name)))
    monkeypatch.setenv("INGEST_CORPUS", config.corpus)
    monkeypatch.setenv("INGEST_EMBEDDING_DIMENSIONS", str(config.embedding_dimensions))
    monkeypatch.setenv("OPENAI_BASE_URL", str(config.embedding_base_url))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    program = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert program is not None
    exec(program[1], {})  # noqa: S102  it is ours
    assert "guide.md" in capsys.readouterr().out
