"""The configuration of a corpus: the value that everything else takes, made in Python or from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from pydantic import ModelWrapValidatorHandler, ValidationError, ValidationInfo, field_validator, model_validator

from ingest_pipeline.chunking.content_defined import CHUNKER, Chunker
from ingest_pipeline.chunking.model_input import ModelInput
from ingest_pipeline.chunking.tokenizer import BYTES, TOKENIZERS, Tokenizer
from ingest_pipeline.columns.declaration import Columns, parse_columns
from ingest_pipeline.config.environment import (
    check_names,
    configuration_error,
    environment_values,
)
from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.config.options.embedding import OPENAI_MODEL
from ingest_pipeline.config.options.stores import absolute_location
from ingest_pipeline.config.origin import ATTRIBUTES, ENVIRONMENT, Origin
from ingest_pipeline.config.prices import read_enricher_prices, read_prices
from ingest_pipeline.config.spending_limits import SpendingLimits
from ingest_pipeline.config.user_extensions import Extensions, load_extensions
from ingest_pipeline.embedding.base import OpenAISettings, check_endpoint
from ingest_pipeline.embedding.input_limits import known_tokenizer, max_input_tokens
from ingest_pipeline.embedding.local import LOCAL_MODEL, is_local
from ingest_pipeline.embedding.prompts import Prompts, configured_prompt, prompts_of, prompts_of_vectors
from ingest_pipeline.embedding.user_embedder import UserEmbedder, load_embedder
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.extensions.loader import read_extensions
from ingest_pipeline.lance.storage import table_uri
from ingest_pipeline.parsing.built_in_parsers import PARSER
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.sources.filters import Selection, pattern_of
from ingest_pipeline.types import Price, Recipe, Retention, split_embedding

_ENVIRONMENT_DEFAULTS = {"corpus": "documents", "source": "documents"}
_PROMPT_OPTIONS = ("query_prefix", "query_fields", "document_prefix", "document_fields")


class CorpusConfig(CorpusOptions):
    """The configuration of one corpus, for example `CorpusConfig(corpus="handbook", source="documents")`.

    Relative paths are resolved against the current folder when the value is made.

    Raises:
        ConfigurationError: An option is wrong, or there is no such option.
    """

    @field_validator("source", "state", "lancedb_uri")
    @classmethod
    def _make_absolute(cls, value: str) -> str:
        return absolute_location(value)

    @field_validator("golden_set")
    @classmethod
    def _make_golden_set_absolute(cls, value: str | None) -> str | None:
        return None if not value else absolute_location(value)

    @field_validator("tokenizer")
    @classmethod
    def _make_tokenizer_absolute(cls, value: str | None) -> str | None:
        return value if value is None or value in TOKENIZERS else absolute_location(value)

    @model_validator(mode="before")
    @classmethod
    def _adopt_embedder(cls, value: object) -> object:
        """An embedder of the user names the model and its width."""
        if not isinstance(value, Mapping):
            return value
        values = cast("Mapping[str, object]", value)
        with refusals():
            extensions = read_extensions("embedder", values.get("embedder"))
            embedder = load_embedder(extensions)
            if embedder is None:
                return values
            if given := [name for name in _PROMPT_OPTIONS if values.get(name)]:
                raise ConfigurationError(
                    f"INGEST_{given[0].upper()} is set, and the vectors are of an embedder of your own",
                    "Let the embedder add what its model needs.",
                )
        model = {"embedding_model": embedder.model, "embedding_dimensions": embedder.dimensions}
        return {**values, **model, "embedder": extensions}

    @model_validator(mode="after")
    def _load_extensions(self) -> Self:
        with refusals():
            _ = self.extensions
            self.create_chunker()
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _raise_own_error(cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            origin = info.context if isinstance(info.context, Origin) else ATTRIBUTES
            failure = configuration_error(error, set(cls.model_fields), origin)
        raise failure

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> CorpusConfig:
        """Read the variables `INGEST_*`. An empty variable counts as unset.

        Raises:
            ConfigurationError: A value is malformed, or no option has the name of a variable.
        """
        if endpoint := environment.get("OPENAI_BASE_URL"):
            check_endpoint(endpoint, "OPENAI_BASE_URL")
        values: dict[str, object] = dict(_ENVIRONMENT_DEFAULTS)
        if environment.get("OPENAI_API_KEY") or endpoint:
            values["embedding_model"] = OPENAI_MODEL
        config = cls.model_validate(values | environment_values(environment), context=ENVIRONMENT)
        check_names(environment)
        return config

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401  the values of options, which are checked
        """A copy with other values, which are checked."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)

    def with_embedding(self, embedding: str | None) -> Self:
        """A copy with the model, the dimensions and the prompts of a generation that exists."""
        if embedding is None:
            return self
        model, dimensions, _ = split_embedding(embedding)
        is_configured = model == self.embedding_model
        has_width = dimensions == self.embedding_dimensions
        prompts = prompts_of_vectors(embedding, self.prompts if is_configured else None)
        if not is_configured:
            # The tokenizer and the limit are those of the configured model.
            needs_bytes = self.chunk_unit == "tokens" and known_tokenizer(model) is None
            tokens = {"tokenizer": BYTES if needs_bytes else None, "embedding_max_tokens": None}
        else:
            tokens = {}
        return self.replace(
            embedder=self.embedder if is_configured and has_width else None,
            **tokens,
            embedding_model=model,
            # The endpoint of a configured model does not make the local one another model.
            embedding_base_url=None if model == LOCAL_MODEL and not is_configured else self.embedding_base_url,
            embedding_dimensions=dimensions,
            query_prefix=prompts.query.prefix,
            query_fields=dict(prompts.query.fields),
            document_prefix=prompts.document.prefix,
            document_fields=dict(prompts.document.fields),
        )

    @property
    def prompts(self) -> Prompts:
        """What is sent to the model with questions and with documents."""
        known = prompts_of(self.embedding_model)
        return Prompts(
            configured_prompt(known.query, self.query_prefix, self.query_fields),
            configured_prompt(known.document, self.document_prefix, self.document_fields),
        )

    @property
    def model_input(self) -> ModelInput:
        """What the model is sent with a chunk, and how much it takes.

        Raises:
            ConfigurationError: The tokenizer cannot be read.
        """
        model, limit = self.embedding_model, self.embedding_max_tokens
        return ModelInput(
            Tokenizer.of(self.tokenizer or known_tokenizer(model) or BYTES),
            max_input_tokens(model) if limit is None else limit,
            self.prompts.document.prefix,
            self.heading_context,
        )

    def create_chunker(self) -> Chunker:
        """The built-in chunker with the sizes of the settings.

        Raises:
            ConfigurationError: A size is out of bounds, or the model takes too little text.
        """
        return Chunker(self.chunk_size, self.chunk_overlap, unit=self.chunk_unit, model_input=self.model_input)

    @property
    def uses_local_model(self) -> bool:
        """Whether vectors come from the local model, which costs nothing."""
        return is_local(self.embedding_model, self.embedding_base_url)

    @property
    def dagster_home(self) -> Path:
        """`DAGSTER_HOME`, or a folder under `state`."""
        return Path(os.environ.get("DAGSTER_HOME") or f"{self.state}/dagster").absolute()

    @property
    def postgres_directory(self) -> Path:
        """Folder of the embedded Postgres."""
        return Path(self.state) / "postgres"

    @property
    def table_uri(self) -> str:
        """Folder of the Lance dataset. LanceDB finds it as a table with the name of the corpus."""
        return table_uri(self.lancedb_uri, self.corpus)

    @property
    def embedder_settings(self) -> OpenAISettings:
        """Settings of the embedder. Without a key or an endpoint it reads OPENAI_API_KEY and OPENAI_BASE_URL."""
        return OpenAISettings(
            self.embedding_model,
            self.embedding_dimensions,
            base_url=self.embedding_base_url,
            api_key=self.embedding_api_key,
            concurrency=self.embedding_concurrency,
            padded_tokens=self.embedding_batch_tokens,
            prompts=self.prompts,
            embedder=self.user_embedder,
        )

    @property
    def user_embedder(self) -> UserEmbedder | None:
        """The user's own embedder, None if an API or the local model computes the vectors.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit its protocol.
        """
        return load_embedder(self.embedder)

    @property
    def scheme(self) -> PartitionScheme:
        """How documents are assigned to partitions."""
        return PartitionScheme.parse(self.partition_by)

    @property
    def recipe(self) -> Recipe:
        """Everything besides the bytes that determines the chunks and vectors of a document."""
        given = self.model_input
        counts_tokens = self.chunk_unit == "tokens" or given.max_tokens is not None
        return Recipe(
            PARSER,
            CHUNKER,
            self.chunk_size,
            self.chunk_overlap,
            self.embedding_model,
            self.embedding_dimensions,
            self.encoding,
            self.extensions.chunker_fingerprint,
            self.extensions.parser_fingerprints,
            heading_context=self.heading_context,
            prompt=self.prompts.document.encode(),
            chunk_unit=self.chunk_unit,
            tokenizer=given.tokenizer.name if counts_tokens else "",
            max_tokens=given.max_tokens,
            enrichers=self.extensions.enricher_fingerprints,
        )

    @property
    def extensions(self) -> Extensions:
        """The user's own parsers, chunker and enrichers.

        Raises:
            ConfigurationError: One cannot be loaded or does not fit its protocol.
        """
        return load_extensions(self.parser, self.chunker, self.enricher, read_enricher_prices(self.enricher_prices))

    @property
    def selection(self) -> Selection:
        """Which objects of the source are documents. Files in this package's own folders never are."""
        own = own_folders(self.source, self.lancedb_uri, Path(self.state), os.environ.get("DAGSTER_HOME"))
        return Selection(self.include, (*self.exclude, *own), self.max_bytes)

    @property
    def declared_columns(self) -> Columns:
        """The columns of the documents."""
        return parse_columns(self.columns, self.columns_from_key, self.columns_from_tags, self.chunk_columns)

    @property
    def prices(self) -> tuple[Price, ...]:
        """Prices of embedding models. Without one, no cost is shown."""
        return read_prices(self.embedding_prices)

    @property
    def limits(self) -> SpendingLimits:
        """Limits on the chunks of a document and on the tokens of a run and a day."""
        return SpendingLimits.of(self.max_chunks, self.max_tokens_per_run, self.max_tokens_per_day)

    @property
    def retention(self) -> Retention:
        """How long versions are kept."""
        return Retention(self.retention_days, self.retention_publications)


def own_folders(source: str, lancedb_uri: str, state: Path, dagster_home: str | None) -> tuple[str, ...]:
    """Patterns of this package's own folders below the source, so that they are not ingested.

    Args:
        source: A path or a url of the documents.
        lancedb_uri: A path or a url of the tables.
        state: Folder of the files on this machine.
        dagster_home: `DAGSTER_HOME`, if it is set.
    """
    if "://" in source:
        return ()
    root = Path(source).resolve()
    folders = [state / "postgres", state / "dagster", state / "lancedb"]
    folders += [] if "://" in lancedb_uri else [Path(lancedb_uri)]
    folders += [Path(dagster_home)] if dagster_home else []
    within = {folder.resolve().relative_to(root) for folder in folders if folder.resolve().is_relative_to(root)}
    return tuple(f"{pattern_of(str(folder))}/" for folder in sorted(within) if folder.parts)
