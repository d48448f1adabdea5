"""Options of a corpus: parsers, chunkers and enrichers of the user."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, field_validator

from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.config.prices import read_enricher_prices
from ingest_pipeline.extensions.loader import SCHEMA


class UserCodeOptions(BaseModel):
    """The options of a corpus that name code of the user."""

    parser: Any = Field(
        default=None,
        description="Parsers of yours, by dotted path. Each parses the files whose suffixes it names.",
        examples=["my_package.parsers.EmailParser"],
        json_schema_extra=SCHEMA,
    )
    chunker: Any = Field(
        default=None,
        description="A chunker of yours, by dotted path. Default: the built-in one.",
        examples=[{"class": "my_package.chunkers.CodeChunker", "arguments": {"language": "python"}}],
        json_schema_extra=SCHEMA,
    )
    enricher: Any = Field(
        default=None,
        description="Enrichers of yours, by dotted path. Each computes columns, and gets those of the ones before it.",
        examples=[["my_package.enrichers.FrontMatter"]],
        json_schema_extra=SCHEMA,
    )
    enricher_prices: str = Field(
        default="",
        description="What enrichers of yours cost: dotted path, price of a million reported tokens, currency and date. "
        "Default: the cost that an enricher reports, if any.",
        examples=["my_package.enrichers.Summary 0.60 USD 2026-11-01"],
    )

    @field_validator("enricher_prices")
    @classmethod
    def _check_enricher_prices(cls, value: str) -> str:
        with refusals():
            read_enricher_prices(value)
        return value
