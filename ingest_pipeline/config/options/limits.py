"""Options of a corpus: the context of chunks, limits, and how long versions are kept."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ingest_pipeline.config.spending_limits import DEFAULT_LIMITS
from ingest_pipeline.types import DEFAULT_RETENTION


class LimitOptions(BaseModel):
    """The options of a corpus that are about context and limits."""

    heading_context: bool = Field(
        default=False,
        description="Whether the headings above a chunk are embedded and indexed with it.",
    )
    max_chunks: int = Field(
        default=DEFAULT_LIMITS.chunks_per_document or 0,
        ge=0,
        description="Chunks of one document, at most. A document with more is refused. 0: no limit.",
    )
    max_tokens_per_run: int = Field(
        default=DEFAULT_LIMITS.tokens_per_run or 0,
        ge=0,
        description="Tokens that one run may embed with a paid model, at most. 0: no limit.",
    )
    max_tokens_per_day: int = Field(
        default=DEFAULT_LIMITS.tokens_per_day or 0,
        ge=0,
        description="Tokens that all runs of a corpus may embed with a paid model per day (UTC), at most. 0: no limit.",
    )


class RetentionOptions(BaseModel):
    """The options of a corpus that are about retention."""

    retention_days: int = Field(
        default=DEFAULT_RETENTION.days, ge=0, description="Days for which a version is kept after it was head."
    )
    retention_publications: int = Field(
        default=DEFAULT_RETENTION.publications,
        ge=0,
        description="This many of the latest publications are kept, however old they are.",
    )
