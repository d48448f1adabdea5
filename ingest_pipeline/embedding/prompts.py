"""What embedding models want to be sent with a text, which differs between questions and documents.

Many models are trained with a prefix before each text, or take a field of the request that says what the text is.
Without it they find less, and nothing reports an error. The table has what the models' own documentation says; options
replace it. The sources are the model cards of e5-small-v2, multilingual-e5-large-instruct, e5-mistral-7b-instruct,
bge-large-en-v1.5, bge-large-zh-v1.5, bge-m3 (no prefix), Qwen3-Embedding-0.6B, gte-Qwen2-7B-instruct, gte-large-en-v1.5
(no prefix), nomic-embed-text-v1.5, mxbai-embed-large-v1, snowflake-arctic-embed-m, snowflake-arctic-embed-l-v2.0,
embeddinggemma-300m and jina-embeddings-v3, and the references of the embedding APIs of Cohere, Jina and Voyage. Not
verified: that Cohere's compatible endpoint takes `input_type`, and that Jina's v5 has the tasks of v4. The document
side is part of the recipe and of the identity of vectors, because the same text with another prompt is another vector.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from ingest_pipeline.types import split_embedding

USER_MODEL: Final = "embedder:"
"""Begins the names of models that an embedder of the user serves. Its fingerprint follows."""
FieldValue = str | int | float | bool
_PREFIX: Final = "prefix"
_FIELD: Final = "field."


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent with each text of one purpose."""

    prefix: str = ""
    """Precedes the text."""
    fields: tuple[tuple[str, FieldValue], ...] = ()
    """Further fields of the request, by name."""

    def encode(self) -> str:
        """A text that is equal for equal prompts, empty if there is nothing to send."""
        pairs = [(_PREFIX, self.prefix)] if self.prefix else []
        pairs += [(f"{_FIELD}{name}", json.dumps(value)) for name, value in sorted(self.fields)]
        return urlencode(pairs, quote_via=quote, safe="")

    @classmethod
    def decode(cls, encoded: str) -> Prompt:
        """The prompt of a text that `encode` made."""
        pairs = parse_qsl(encoded, keep_blank_values=True)
        fields = [(name.removeprefix(_FIELD), json.loads(value)) for name, value in pairs if name.startswith(_FIELD)]
        return cls(dict(pairs).get(_PREFIX, ""), tuple(fields))


NO_PROMPT: Final = Prompt()


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a model."""

    query: Prompt = NO_PROMPT
    document: Prompt = NO_PROMPT


def _by_prefix(query: str, document: str = "") -> Prompts:
    return Prompts(Prompt(query), Prompt(document))


def _by_field(name: str, query: str, document: str) -> Prompts:
    return Prompts(Prompt(fields=((name, query),)), Prompt(fields=((name, document),)))


_REPRESENT: Final = "Represent this sentence for searching relevant passages: "
_REPRESENT_CHINESE: Final = "为这个句子生成表示以用于检索相关文章："  # noqa: RUF001  as the model was trained
_TASK: Final = "Given a web search query, retrieve relevant passages that answer the query"
# By the last part of a model's name, in lower case and without a tag such as `:latest`. The first match counts.
_FAMILIES: Final = [
    (re.compile(r"(multilingual-)?e5-.*instruct"), _by_prefix(f"Instruct: {_TASK}\nQuery: ")),
    (re.compile(r"(multilingual-)?e5-(small|base|large)(-.*)?"), _by_prefix("query: ", "passage: ")),
    (re.compile(r"bge-(small|base|large)-en(-.*)?"), _by_prefix(_REPRESENT)),
    (re.compile(r"bge-(small|base|large)-zh(-.*)?"), _by_prefix(_REPRESENT_CHINESE)),
    # Without a space at the end, unlike e5 and gte.
    (re.compile(r"qwen3-embedding(-.*)?"), _by_prefix(f"Instruct: {_TASK}\nQuery:")),
    (re.compile(r"gte-qwen.*-instruct"), _by_prefix(f"Instruct: {_TASK}\nQuery: ")),
    (re.compile(r"nomic-embed-text(-.*)?"), _by_prefix("search_query: ", "search_document: ")),
    (re.compile(r"mxbai-embed-(large|2d-large).*"), _by_prefix(_REPRESENT)),
    (re.compile(r"snowflake-arctic-embed-[lm]-v2\.0|snowflake-arctic-embed2"), _by_prefix("query: ")),
    (re.compile(r"snowflake-arctic-embed(-.*)?"), _by_prefix(_REPRESENT)),
    (re.compile(r"embeddinggemma(-.*)?"), _by_prefix("task: search result | query: ", "title: none | text: ")),
    (re.compile(r"embed-(english|multilingual|v\d).*"), _by_field("input_type", "search_query", "search_document")),
    (re.compile(r"jina-embeddings-v[345].*"), _by_field("task", "retrieval.query", "retrieval.passage")),
    (re.compile(r"voyage-.*"), _by_field("input_type", "query", "document")),
]


def model_name(model: str) -> str:
    """The part of a model's name by which families are known: the last one, in lower case, without a tag.

    Empty for an embedder of the user, which adds what its model needs, whatever its fingerprint looks like.
    """
    return "" if model.startswith(USER_MODEL) else model.lower().rpartition("/")[2].partition(":")[0]


def prompts_of(model: str) -> Prompts:
    """The prompts that a model's documentation names; none for unknown models, OpenAI's and the local one."""
    name = model_name(model)
    return next((prompts for family, prompts in _FAMILIES if family.fullmatch(name)), Prompts())


def configured_prompt(known: Prompt, prefix: str | None, fields: Mapping[str, FieldValue] | None) -> Prompt:
    """The prompt of a model in which the configured parts replace the known ones."""
    return Prompt(
        known.prefix if prefix is None else prefix, known.fields if fields is None else tuple(sorted(fields.items()))
    )


def prompts_of_vectors(embedding: str, configured: Prompts | None = None) -> Prompts:
    """The prompts for a corpus with vectors of this embedding.

    Args:
        embedding: Model, dimensions and document prompt, as recipes and the catalog have them.
        configured: The configured prompts, if the configured model is that of the corpus. None: it is another.

    Returns:
        The document prompt of the vectors. The query prompt belongs to it, so there is none for vectors that were made
        without the document prompt of their model.
    """
    model, _, encoded = split_embedding(embedding)
    document = Prompt.decode(encoded)
    known = configured or prompts_of(model)
    return Prompts(known.query if known.document == document else NO_PROMPT, document)
