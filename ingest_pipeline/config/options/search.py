"""Options of a corpus: how search results are ranked."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.embedding.base import check_endpoint
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import SCHEMA


class SearchOptions(BaseModel):
    """The options of a corpus that are about rerankers."""

    reranker: Any = Field(
        default=None,
        description="Own reranker, by dotted path. It decides the order of search results.",
        examples=["my_package.rerankers.MyReranker"],
        json_schema_extra=SCHEMA,
    )
    rerank_url: str | None = Field(
        default=None,
        description="Address of a reranker that decides the order of search results. Default: none.",
        examples=["http://localhost:8080/rerank"],
    )
    rerank_model: str | None = Field(default=None, description="Its model, unless it serves one model only.")
    rerank_api_key: str | None = Field(default=None, repr=False, description="Its key, if it needs one.")

    @field_validator("rerank_url")
    @classmethod
    def _check_reranker(cls, value: str | None) -> str | None:
        with refusals():
            return check_endpoint(value, "rerank_url") if value else None

    @model_validator(mode="after")
    def _check_one_reranker(self) -> Self:
        with refusals():
            if self.reranker and self.rerank_url:
                raise ConfigurationError("INGEST_RERANKER and INGEST_RERANK_URL are both set", "Keep one of them.")
        return self
