"""How many tokens embedding models take of one text, and which of them have a tokenizer at hand.

What exceeds the limit of a model is cut off by some servers without an error, and refused by others. Chunks are
therefore divided before they are sent. The limits are those of the model cards and of the documentation of the APIs; of
two numbers, the smaller one. Servers may be configured with a lower limit than their model's, as Ollama is by default:
the option `embedding_max_tokens` takes precedence.
"""

from __future__ import annotations

import re
from typing import Final

from ingest_pipeline.embedding.local import LOCAL_MODEL, MAX_INPUT_TOKENS
from ingest_pipeline.embedding.prompts import model_name

# By the last part of a model's name, as in `embedding.prompts`. The first match counts.
_FAMILIES: Final = [
    (re.compile(re.escape(LOCAL_MODEL)), MAX_INPUT_TOKENS),
    (re.compile(r"text-embedding-(3-(small|large)|ada-002)"), 8191),
    (re.compile(r"e5-mistral-7b-instruct"), 4096),
    (re.compile(r"(multilingual-)?e5-.*"), 512),
    (re.compile(r"bge-m3(-.*)?"), 8192),
    (re.compile(r"bge-(small|base|large)-.*"), 512),
    (re.compile(r"qwen3-embedding(-.*)?"), 8192),
    (re.compile(r"nomic-embed-text-v2-moe"), 512),
    (re.compile(r"nomic-embed-text(-.*)?"), 8192),
    (re.compile(r"jina-embeddings-v\d.*"), 8192),
    (re.compile(r"embed-(english|multilingual)-(light-)?v3\.0"), 512),
    (re.compile(r"embed-v4.*"), 128_000),
    (re.compile(r"voyage-(2|lite-02-instruct)"), 4000),
    (re.compile(r"voyage-(large|code|law)-2(-instruct)?"), 16_000),
    (re.compile(r"voyage-.*"), 32_000),
    (re.compile(r"mxbai-embed-(large|2d-large).*"), 512),
    (re.compile(r"snowflake-arctic-embed-(l|m)-v2\.0|snowflake-arctic-embed2"), 8192),
    (re.compile(r"snowflake-arctic-embed-m-long"), 2048),
    (re.compile(r"snowflake-arctic-embed.*"), 512),
    (re.compile(r"gte-((base|large)-en-v1\.5|multilingual-base|modernbert-base|qwen.*)"), 8192),
    (re.compile(r"gte-(small|base|large)(-.*)?"), 512),
    (re.compile(r"embeddinggemma(-.*)?"), 2048),
    (re.compile(r"all-minilm-l6-v2|all-minilm"), 256),
    (re.compile(r"all-minilm-l12-v2|paraphrase-multilingual-minilm-l12-v2"), 128),
    (re.compile(r"all-mpnet-base-v2"), 384),
]
_OPENAI: Final = re.compile(r"text-embedding-(3-(small|large)|ada-002)")


def max_input_tokens(model: str) -> int | None:
    """The limit of a model on one text. None: it is not known."""
    name = model_name(model)
    return next((tokens for family, tokens in _FAMILIES if family.fullmatch(name)), None)


def known_tokenizer(model: str) -> str | None:
    """The name of the tokenizer of a model that needs no file. None: there is none."""
    if model == LOCAL_MODEL:
        return LOCAL_MODEL
    return "cl100k_base" if _OPENAI.fullmatch(model_name(model)) else None
