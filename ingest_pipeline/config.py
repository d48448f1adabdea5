"""The configuration of a corpus: every option with its name, default, description and check.

`CorpusOptions` declares the options once. `CorpusConfig` is the value that everything else takes; it can be written in
Python or read from the environment. The component's YAML is another view of the same options.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ingest_pipeline.chunking.content_defined import CHUNKER, Chunker
from ingest_pipeline.embedding.base import OpenAISettings, check_endpoint
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL
from ingest_pipeline.embedding.pricing import read_prices
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.parsing.formats import PARSER
from ingest_pipeline.parsing.text_decoding import fallback_encoding
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.url import database_url as checked_url
from ingest_pipeline.sources.filters import Selection, pattern_of
from ingest_pipeline.sources.local import FollowLinks
from ingest_pipeline.sources.object_store import canonical_url
from ingest_pipeline.spending_limits import DEFAULT_LIMITS, SpendingLimits
from ingest_pipeline.types import (
    DEFAULT_RETENTION,
    OnUnreadable,
    Price,
    Recipe,
    Retention,
    corpus_name,
    split_embedding,
)

_PREFIX = "INGEST_"
_VARIABLE = re.compile(r"INGEST_([A-Z_]+)")
# Variables of the prefix that other modules read.
_READ_ELSEWHERE = {"INGEST_FAILPOINTS"}
# Options that the environment names OPENAI_BASE_URL and OPENAI_API_KEY, or not at all.
_NOT_IN_ENVIRONMENT = {"embedding_base_url", "embedding_api_key", "embedding_concurrency"}
_ENVIRONMENT_DEFAULTS = {"corpus": "documents", "source": "documents"}
_FROM_ENVIRONMENT = "environment"
_LANCE_SCHEMES = {"file", "s3", "s3+ddb", "gs", "az", "abfss", "oss"}
_OPENAI_MODEL = "text-embedding-3-small"
_OPENAI_DIMENSIONS = 1536


class RefusedError(ValueError):
    """A `ConfigurationError` about one option, in the form in which pydantic collects errors. Names attributes."""

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(_attributes(str(error)))
        self.error = error


@contextmanager
def refusals() -> Generator[None]:
    """Raise the `ConfigurationError` of the block as a `RefusedError`, so that pydantic adds the option's name."""
    try:
        yield
    except ConfigurationError as error:
        raise RefusedError(error) from None


class CorpusOptions(BaseModel):
    """The options of a corpus. Paths may be relative to a folder that the reader of the options knows."""

    # An error message must not repeat a value that may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    corpus: str = Field(
        description="Name of the corpus and of its LanceDB table. All its names in Dagster begin with it.",
        examples=["handbook"],
    )
    source: str = Field(
        description="The files: a path, or s3://, gs:// or az:// with bucket and prefix.",
        examples=["documents", "s3://company/handbook"],
    )
    state: str = Field(
        default=".ingest_pipeline",
        description="Folder of everything that this machine keeps: the embedded Postgres, and Dagster's home.",
    )
    lancedb_uri: str = Field(
        default_factory=lambda data: f"{data['state']}/lancedb",
        description="Folder of the LanceDB tables: a path or an object-store url. Default: `lancedb` under `state`.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="Postgres of the catalog. Default: an embedded Postgres under `state`.",
    )
    embedding_model: str = Field(
        default=LOCAL_MODEL,
        description="Name of the embedding model. The local model runs in the process and costs nothing.",
        examples=[_OPENAI_MODEL],
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
    embedding_prices: str = Field(
        default="",
        description="What models cost: model, price of a million tokens, currency and date. Default: no cost is shown.",
        examples=["text-embedding-3-small 0.02 USD 2026-11-01"],
    )
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
        default=(), description="Patterns of documents that are not ingested although included.", examples=[["drafts/"]]
    )
    max_bytes: int | None = Field(default=None, ge=1, description="Larger files are not ingested. Default: any size.")
    min_age_seconds: int = Field(
        default=5, ge=0, description="The source sensor waits until a file has not been modified for so long."
    )
    follow_links: FollowLinks = Field(
        default="inside",
        description="Which links of a local folder are followed: inside (if they stay within it), anywhere or never.",
    )
    on_unreadable: OnUnreadable = Field(
        default="skip",
        description="Whether a run skips and lists files that cannot be read, or fails after it did the rest.",
        examples=["fail"],
    )
    encoding: str | None = Field(
        default=None,
        description="Encoding of text that is not UTF-8 and has no byte order mark. Default: such text is unreadable.",
        examples=["cp1252"],
    )
    chunk_size: int = Field(default=1000, description="Characters in a chunk, at most.")
    chunk_overlap: int = Field(default=0, description="Characters that a chunk repeats of the one before it, at most.")
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
    retention_days: int = Field(
        default=DEFAULT_RETENTION.days, ge=0, description="Days for which a version is kept after it was head."
    )
    retention_publications: int = Field(
        default=DEFAULT_RETENTION.publications,
        ge=0,
        description="The versions of so many last publications are kept, however old they are.",
    )

    @field_validator("corpus")
    @classmethod
    def _check_corpus(cls, value: str) -> str:
        with refusals():
            return corpus_name(value)

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with refusals():
            if "://" in value:  # a path is checked where it is read, which may be another machine
                canonical_url(value)
        return value

    @field_validator("lancedb_uri")
    @classmethod
    def _check_lancedb_uri(cls, value: str) -> str:
        with refusals():
            return check_lancedb_uri(value)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str | None) -> str | None:
        with refusals():
            return checked_url(value) if value else None

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

    @model_validator(mode="after")
    def _check_chunks(self) -> Self:
        with refusals():
            Chunker(self.chunk_size, self.chunk_overlap)
        return self


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

    @model_validator(mode="wrap")
    @classmethod
    def _raise_own_error(cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            failure = _configuration_error(error, set(cls.model_fields), info.context == _FROM_ENVIRONMENT)
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
            values["embedding_model"] = _OPENAI_MODEL
        for name in environment_options():
            if text := environment.get(variable_of(name)):
                values[name] = _parsed(name, text)
        config = cls.model_validate(values, context=_FROM_ENVIRONMENT)
        _check_names(environment)
        return config

    def replace(self, **changes: Any) -> Self:  # noqa: ANN401  the values of options, which are checked
        """A copy with other values, which are checked."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)

    def with_embedding(self, embedding: str | None) -> Self:
        """A copy with the model and dimensions of a generation that exists."""
        if embedding is None:
            return self
        model, dimensions = split_embedding(embedding)
        return self.replace(embedding_model=model, embedding_dimensions=dimensions)

    @property
    def uses_local_model(self) -> bool:
        """Whether vectors come from the model of this package, which costs nothing."""
        return self.embedding_model == LOCAL_MODEL and not self.embedding_base_url

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
        """Folder of the Lance dataset, where LanceDB looks for a table that is named like the corpus."""
        return self.uri_of(self.corpus)

    def uri_of(self, generation: str) -> str:
        """Folder of the Lance dataset of a generation of the corpus."""
        return f"{self.lancedb_uri.rstrip('/')}/{generation}.lance"

    @property
    def embedder_settings(self) -> OpenAISettings:
        """Settings of the embedder. Without a key or an endpoint it reads OPENAI_API_KEY and OPENAI_BASE_URL."""
        return OpenAISettings(
            self.embedding_model,
            self.embedding_dimensions,
            base_url=self.embedding_base_url,
            api_key=self.embedding_api_key,
            concurrency=self.embedding_concurrency,
        )

    @property
    def scheme(self) -> PartitionScheme:
        """How documents are assigned to partitions."""
        return PartitionScheme.parse(self.partition_by)

    @property
    def recipe(self) -> Recipe:
        """Everything besides the bytes that determines the chunks and vectors of a document."""
        return Recipe(
            PARSER,
            CHUNKER,
            self.chunk_size,
            self.chunk_overlap,
            self.embedding_model,
            self.embedding_dimensions,
            self.encoding,
        )

    @property
    def selection(self) -> Selection:
        """Which objects of the source are documents. Folders of this package below the source never are."""
        own = own_folders(self.source, self.lancedb_uri, Path(self.state), os.environ.get("DAGSTER_HOME"))
        return Selection(self.include, (*self.exclude, *own), self.max_bytes)

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


def environment_options() -> list[str]:
    """Names of the options that the environment can set."""
    return [name for name in CorpusOptions.model_fields if name not in _NOT_IN_ENVIRONMENT]


def variable_of(option: str) -> str:
    """The variable of the environment that sets an option."""
    return f"{_PREFIX}{option.upper()}"


def default_dimensions(model: str) -> int:
    """Width of a model's vectors unless another one is configured."""
    return LOCAL_DIMENSIONS if model == LOCAL_MODEL else _OPENAI_DIMENSIONS


def table_uri(lancedb_uri: str, name: str) -> str:
    """Folder of the Lance dataset of a LanceDB table.

    Raises:
        ConfigurationError: The name cannot be that of a table.
    """
    return f"{lancedb_uri.rstrip('/')}/{corpus_name(name)}.lance"


def check_lancedb_uri(uri: str) -> str:
    """The uri without slashes at its end.

    Raises:
        ConfigurationError: It cannot be a folder of tables.
    """
    if "://" not in uri:
        return uri.rstrip("/") or uri
    parts = urlsplit(uri)
    if parts.scheme in _LANCE_SCHEMES and (parts.netloc or parts.scheme == "file"):
        return uri.rstrip("/")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    raise ConfigurationError(
        f"INGEST_LANCEDB_URI is {shown!r}, which is neither a path nor a url such as s3://bucket/folder",
        "Correct INGEST_LANCEDB_URI.",
    )


def own_folders(source: str, lancedb_uri: str, state: Path, dagster_home: str | None) -> tuple[str, ...]:
    """Patterns of this package's own folders below the source, which would otherwise ingest its own output for ever.

    Args:
        source: A path or a url of the documents.
        lancedb_uri: A path or a url of the tables.
        state: Folder of everything that this machine keeps.
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


def absolute_location(location: str) -> str:
    """A local path as an absolute one, so that one corpus is not mistaken for two. A url is returned unchanged."""
    return location if "://" in location else str(Path(location).absolute())


def _parsed(name: str, text: str) -> object:
    """The value of an option from its variable."""
    if name in {"include", "exclude"}:
        return [part for part in text.split(":") if part]  # as in PATH
    if name == "max_bytes":
        return _number(name, text, 0) or None
    field = CorpusOptions.model_fields[name]
    if field.annotation is not int:
        return text
    return _number(name, text, max((getattr(bound, "ge", 0) for bound in field.metadata), default=0))


def _number(name: str, text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        variable = variable_of(name)
        raise ConfigurationError(
            f"{variable} is {text!r}, which is not a whole number of {least} or more", f"Correct {variable}."
        )
    return int(text)


def _check_names(environment: Mapping[str, str]) -> None:
    """Refuse a variable that looks like an option and is none. Misspelt, it would silently do nothing."""
    known = set(map(variable_of, environment_options()))
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known | _READ_ELSEWHERE:
            remedy = _suggestion(name, known)
            raise ConfigurationError(f"There is no setting {name}", f"{remedy} Nothing was changed.")


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f"Did you mean {close[0]}?" if close else f"The known ones are {', '.join(sorted(known))}."


def _attributes(text: str) -> str:
    """The text with the names of attributes instead of those of variables."""
    return _VARIABLE.sub(lambda found: found[1].lower(), text)


def _configuration_error(error: ValidationError, known: set[str], from_environment: bool) -> ConfigurationError:  # noqa: FBT001
    """The first of pydantic's errors, with the names that the reader of the message used."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RefusedError):
        refused = cause.error
        if from_environment:
            return refused
        return ConfigurationError(_attributes(refused.message), _attributes(refused.advice))
    option = str(first["loc"][0]) if first["loc"] else "The configuration"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(f"There is no option {option!r}", _suggestion(option, known))
    name = variable_of(option) if from_environment else option
    shown = f" is {first['input']!r}" if first["type"] == "literal_error" else ""
    return ConfigurationError(f"{name}{shown}: {first['msg']}", f"Correct {name}.")
