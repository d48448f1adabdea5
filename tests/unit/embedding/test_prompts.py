"""Each model gets what its documentation says, and vectors that were made in another way have another identity."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.batch_api import BatchApi
from ingest_pipeline.embedding.create import for_embedding
from ingest_pipeline.embedding.openai import OpenAIEmbedder
from ingest_pipeline.embedding.prompts import NO_PROMPT, Prompt, Prompts, prompts_of
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import join_embedding, split_embedding

E5 = "intfloat/e5-small-v2"


@pytest.mark.parametrize(
    ("model", "query", "document"),
    [
        (E5, "query: ", "passage: "),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("BAAI/bge-base-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("nomic-embed-text:latest", "search_query: ", "search_document: "),
        ("BAAI/bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),  # noqa: RUF001  as the model was trained
        ("mixedbread-ai/mxbai-embed-large-v1", "Represent this sentence for searching relevant passages: ", ""),
        ("Snowflake/snowflake-arctic-embed-m", "Represent this sentence for searching relevant passages: ", ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("google/embeddinggemma-300m", "task: search result | query: ", "title: none | text: "),
        ("Alibaba-NLP/gte-large-en-v1.5", "", ""),
        ("BAAI/bge-m3", "", ""),
        ("text-embedding-3-small", "", ""),
        ("wordllama-l2-256", "", ""),
    ],
)
def test_a_known_model_gets_its_prefixes(model: str, query: str, document: str) -> None:
    assert prompts_of(model) == Prompts(Prompt(query), Prompt(document))


@pytest.mark.parametrize(
    "model",
    [
        "Qwen/Qwen3-Embedding-0.6B",
        "qwen3-embedding:4b",
        "intfloat/multilingual-e5-large-instruct",
        "Alibaba-NLP/gte-Qwen2-7B-instruct",
    ],
)
def test_a_model_with_instructions_gets_one_for_questions_only(model: str) -> None:
    prompts = prompts_of(model)
    assert prompts.query.prefix.startswith("Instruct: ")
    assert "\nQuery:" in prompts.query.prefix
    assert prompts.document == NO_PROMPT


@pytest.mark.parametrize(
    ("model", "name", "query", "document"),
    [
        ("embed-multilingual-v3.0", "input_type", "search_query", "search_document"),
        ("embed-v4.0", "input_type", "search_query", "search_document"),
        ("jina-embeddings-v3", "task", "retrieval.query", "retrieval.passage"),
        ("voyage-3.5-lite", "input_type", "query", "document"),
        ("voyage/voyage-3.5", "input_type", "query", "document"),
    ],
)
def test_a_known_api_gets_its_fields(model: str, name: str, query: str, document: str) -> None:
    prompts = prompts_of(model)
    assert (prompts.query.fields, prompts.document.fields) == (((name, query),), ((name, document),))


FIELDS = st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.booleans()).map(
    lambda fields: tuple(sorted(fields.items()))
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(min_size=1), st.integers(1, 9999), st.text(), FIELDS)
def test_an_identity_can_be_read_back(
    model: str, width: int, prefix: str, fields: tuple[tuple[str, str | int | bool], ...]
) -> None:
    prompt = Prompt(prefix, fields)
    assert Prompt.decode(prompt.encode()) == prompt
    assert split_embedding(join_embedding(model, width, prompt.encode())) == (model, width, prompt.encode())


def test_without_a_prompt_the_identity_is_model_and_width() -> None:
    assert CorpusConfig(corpus="c", source="s").recipe.embedding == "wordllama-l2-256/256"
    e5 = CorpusConfig(corpus="c", source="s", embedding_model=E5, embedding_dimensions=384)
    assert e5.recipe.embedding == f"{E5}/384?prefix=passage%3A%20"
    assert e5.replace(document_prefix="").recipe.embedding == f"{E5}/384"
    assert e5.embedder_settings.embedding == e5.recipe.embedding


def test_a_corpus_keeps_its_prompt_whatever_the_settings_say() -> None:
    settings = CorpusConfig(
        corpus="c", source="s", embedding_model=E5, embedding_dimensions=384, document_fields={"b": 1, "a": "x"}
    )
    recorded = settings.recipe.embedding
    for other in (settings, settings.replace(document_fields=None), settings.replace(embedding_model="other")):
        kept = other.with_embedding(recorded)
        assert kept.recipe.embedding == recorded
        assert for_embedding(other.embedder_settings, recorded).embedding == recorded
    assert settings.with_embedding(recorded).prompts.query == Prompt("query: ")


def test_a_question_is_asked_as_the_documents_were_embedded() -> None:
    configured = OpenAISettings(E5, 384)
    assert for_embedding(configured, f"{E5}/384").prompt("query") == NO_PROMPT, "the documents have no prefix"
    assert for_embedding(configured, configured.embedding).prompt("query") == Prompt("query: ")
    assert for_embedding(OpenAISettings("other", 9), configured.embedding).prompt("query") == Prompt("query: ")


def test_fields_are_read_from_the_environment_as_json() -> None:
    environment = {"INGEST_QUERY_FIELDS": '{"input_type": "query"}', "INGEST_DOCUMENT_PREFIX": "passage: "}
    config = CorpusConfig.from_environment(environment)
    assert config.prompts == Prompts(Prompt(fields=(("input_type", "query"),)), Prompt("passage: "))
    with pytest.raises(ConfigurationError, match="INGEST_QUERY_FIELDS is '3', which is not an object in JSON"):
        CorpusConfig.from_environment({"INGEST_QUERY_FIELDS": "3"})


def test_a_batch_job_sends_the_prompt_of_documents() -> None:
    prompts = Prompts(Prompt("query: "), Prompt("passage: ", (("input_type", "document"),)))
    embedder = OpenAIEmbedder(OpenAISettings("m", 8, base_url="http://localhost/v1", prompts=prompts))
    lines = BatchApi(embedder)._lines(["one", "two"], 2)  # pyright: ignore[reportPrivateUsage]
    (body,) = [json.loads(line)["body"] for line in lines.splitlines()]
    assert (body["input"], body["input_type"]) == (["passage: one", "passage: two"], "document")
