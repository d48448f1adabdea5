"""All options of a corpus as one model, and the checks of options that depend on each other."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.columns.declaration import check_access, check_tags, parse_columns
from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.config.options.chunks import ChunkOptions
from ingest_pipeline.config.options.columns import ColumnOptions
from ingest_pipeline.config.options.embedding import EmbeddingOptions
from ingest_pipeline.config.options.files import FileOptions
from ingest_pipeline.config.options.gates import GateOptions, GateSettings
from ingest_pipeline.config.options.limits import LimitOptions, RetentionOptions
from ingest_pipeline.config.options.search import SearchOptions
from ingest_pipeline.config.options.stores import StoreOptions
from ingest_pipeline.config.options.user_code import UserCodeOptions
from ingest_pipeline.embedding.input_limits import known_tokenizer
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import Extension, read_extensions


class CorpusOptions(
    GateOptions,
    RetentionOptions,
    SearchOptions,
    LimitOptions,
    UserCodeOptions,
    ChunkOptions,
    ColumnOptions,
    FileOptions,
    EmbeddingOptions,
    StoreOptions,
):
    """The options of a corpus. Relative paths are resolved by what reads the options."""

    # An error message must not repeat a value that may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @field_validator("parser", "chunker", "enricher", "embedder", "reranker", "gate")
    @classmethod
    def _check_extensions(cls, value: object, info: ValidationInfo) -> tuple[Extension, ...]:
        with refusals():
            return read_extensions(str(info.field_name), value)

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        with refusals():
            declared = parse_columns(self.columns, self.columns_from_key, self.columns_from_tags, self.chunk_columns)
            check_access(declared, self.access, required=self.require_principals)
            check_tags(declared, self.source)
        return self

    @model_validator(mode="after")
    def _check_chunks(self) -> Self:
        with refusals():
            if self.chunk_unit == "tokens":
                self._check_tokens()
            Chunker(self.chunk_size, self.chunk_overlap, unit=self.chunk_unit)
        return self

    def _check_tokens(self) -> None:
        if self.chunker:
            raise ConfigurationError(
                "INGEST_CHUNK_UNIT is tokens, and INGEST_CHUNKER names a chunker of your own, which gets characters",
                "Set INGEST_CHUNK_UNIT to characters. The chunker may count tokens itself.",
            )
        if self.tokenizer is None and known_tokenizer(self.embedding_model) is None:
            raise ConfigurationError(
                f"INGEST_CHUNK_UNIT is tokens, and the tokenizer of {self.embedding_model!r} is not known",
                "Set INGEST_TOKENIZER to the file tokenizer.json of the model.",
            )

    @property
    def gates(self) -> GateSettings | None:
        """What a publication must pass; None if nothing is configured."""
        return GateSettings.of(self)
