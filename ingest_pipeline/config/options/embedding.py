"""Options of a corpus: the model that embeds its texts and questions."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, field_validator

from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.config.prices import read_prices
from ingest_pipeline.embedding.base import check_endpoint
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL
from ingest_pipeline.embedding.prompts import FieldValue
from ingest_pipeline.extensions.loader import SCHEMA

OPENAI_MODEL = "text-embedding-3-small"
_OPENAI_DIMENSIONS = 1536


class EmbeddingOptions(BaseModel):
    """The options of a corpus that are about its embedding model."""

    embedder: Any = Field(
        default=None,
        description="An embedder of yours, by dotted path. It replaces embedding_model and embedding_dimensions.",
        examples=["my_package.embedders.MyEmbedder"],
        json_schema_extra=SCHEMA,
    )
    embedding_model: str = Field(
        default=LOCAL_MODEL,
        description="Name of the embedding model. The local model runs in the process and costs nothing.",
        examples=[OPENAI_MODEL],
    )
    embedding_dimensions: int = Field(
        default_factory=lambda data: default_dimensions(data["embedding_model"]),
        ge=1,
        description="Width of the vectors. Default: 256 for the local model, 1536 for any other.",
    )
    embedding_base_url: str | None = Field(
        default=None, description="Endpoint of an API that speaks OpenAI's protocol, instead of OPENAI_BASE_URL."
    )
    embedding_api_key: str | None = Field(default=None, repr=False, description="Its key, instead of OPENAI_API_KEY.")
    embedding_concurrency: int = Field(default=16, ge=1, description="Requests of one run in flight at once, at most.")
    embedding_batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="For a model on a GPU of your own, which pads every text of a request to the longest: texts are "
        "sorted by length, and a request has at most so many tokens, padding included. A token counts as 4 bytes.",
        examples=[16384],
    )
    query_prefix: str | None = Field(
        default=None,
        description="Precedes each question that is embedded. Default: what the documentation of the model says.",
        examples=["query: "],
    )
    query_fields: dict[str, FieldValue] | None = Field(
        default=None,
        description="Further fields of a request that embeds a question. Default: what the documentation of the model "
        "says.",
        examples=[{"input_type": "search_query"}],
    )
    document_prefix: str | None = Field(
        default=None,
        description="Precedes each text of a document that is embedded. Default: what the documentation of the model "
        "says.",
        examples=["passage: "],
    )
    document_fields: dict[str, FieldValue] | None = Field(
        default=None,
        description="Further fields of a request that embeds documents. Default: what the documentation of the model "
        "says.",
        examples=[{"input_type": "search_document"}],
    )
    embedding_prices: str = Field(
        default="",
        description="What models cost: model, price of a million tokens, currency and date. Default: no cost is shown.",
        examples=["text-embedding-3-small 0.02 USD 2026-11-01"],
    )

    @field_validator("embedding_base_url")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        with refusals():
            return check_endpoint(value, "embedding_base_url") if value else None

    @field_validator("embedding_prices")
    @classmethod
    def _check_prices(cls, value: str) -> str:
        with refusals():
            read_prices(value)
        return value


def default_dimensions(model: str) -> int:
    """Width of a model's vectors unless another one is configured."""
    return LOCAL_DIMENSIONS if model == LOCAL_MODEL else _OPENAI_DIMENSIONS
