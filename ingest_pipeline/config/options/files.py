"""Options of a corpus: which files become documents, and of which partitions."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field, field_validator

from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.parsing.text_decoding import fallback_encoding
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.local_listing import FollowLinks
from ingest_pipeline.types import OnUnreadable


class FileOptions(BaseModel):
    """The options of a corpus that are about the files of its source."""

    partition_by: str = Field(
        default="file",
        description="How documents are assigned to partitions. Fixed by the first publication.",
        examples=["file", "folder", "folder:2", "bucket:64"],
    )
    include: Sequence[str] = Field(
        default=(),
        description="Patterns of the documents to ingest, as in a .gitignore. Default: all.",
        examples=[["*.md"]],
    )
    exclude: Sequence[str] = Field(
        default=(),
        description="Patterns of documents that are not ingested, even if they match `include`.",
        examples=[["drafts/"]],
    )
    max_bytes: int | None = Field(default=None, ge=1, description="Larger files are not ingested. Default: any size.")
    min_age_seconds: int = Field(
        default=5,
        ge=0,
        description="The source sensor skips a file until it has not been modified for this many seconds.",
    )
    follow_links: FollowLinks = Field(
        default="inside",
        description="Which links of a local folder are followed: inside (if they stay within it), anywhere or never.",
    )
    on_unreadable: OnUnreadable = Field(
        default="skip",
        description="What a run does with files that cannot be read: skip and list them, or fail after it ingested the "
        "other files.",
        examples=["fail"],
    )
    encoding: str | None = Field(
        default=None,
        description="Encoding of text that is not UTF-8 and has no byte order mark. Default: such text is unreadable.",
        examples=["cp1252"],
    )

    @field_validator("partition_by")
    @classmethod
    def _check_scheme(cls, value: str) -> str:
        with refusals():
            return str(PartitionScheme.parse(value))

    @field_validator("include", "exclude")
    @classmethod
    def _check_patterns(cls, value: Sequence[str]) -> Sequence[str]:
        with refusals():
            Selection(value)
        return tuple(value)

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, value: str | None) -> str | None:
        with refusals():
            return fallback_encoding(value) if value else None
