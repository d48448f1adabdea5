"""Every option of a corpus, declared once: its name, default, description and check."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.columns.declaration import check_access, check_tags, parse_columns
from ingest_pipeline.config.gate_options import GateOptions, GateSettings
from ingest_pipeline.config.origin import ATTRIBUTES
from ingest_pipeline.config.prices import read_enricher_prices, read_prices
from ingest_pipeline.config.spending_limits import DEFAULT_LIMITS
from ingest_pipeline.embedding.base import check_endpoint
from ingest_pipeline.embedding.input_limits import known_tokenizer
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL
from ingest_pipeline.embedding.prompts import FieldValue
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.events.queue_address import QueueAddress
from ingest_pipeline.extensions.loader import SCHEMA, Extension, read_extensions
from ingest_pipeline.parsing.text_decoding import fallback_encoding
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.url import database_url as checked_url
from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.local import FollowLinks
from ingest_pipeline.sources.source_url import canonical_url
from ingest_pipeline.types import DEFAULT_RETENTION, ChunkUnit, OnUnreadable, corpus_name

_LANCE_SCHEMES = {"file", "s3", "gs", "az", "abfss", "oss"}
OPENAI_MODEL = "text-embedding-3-small"
_OPENAI_DIMENSIONS = 1536
_PREFIX_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


class RefusedError(ValueError):
    """A `ConfigurationError` about one option, in the form in which pydantic collects errors. Names attributes."""

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__(ATTRIBUTES.renamed(str(error)))
        self.error = error


@contextmanager
def refusals() -> Generator[None]:
    """Raise the `ConfigurationError` of the block as a `RefusedError`, so that pydantic adds the option's name."""
    try:
        yield
    except ConfigurationError as error:
        raise RefusedError(error) from None


class _CoreOptions(BaseModel):
    """The options of a corpus without those of gates."""

    # An error message must not repeat a value that may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    corpus: str = Field(
        description="Name of the corpus and of its LanceDB table. All its names in Dagster begin with it.",
        examples=["handbook"],
    )
    key_prefix: str | list[str] | None = Field(
        default=None,
        description="Precedes the name of the corpus in the keys of its assets and, joined with __, in all its other "
        "names in Dagster. Corpora of one name need different prefixes.",
        examples=["people/handbooks"],
    )
    source: str = Field(
        description="The files: a path, or s3://, gs:// or az:// with bucket and prefix.",
        examples=["documents", "s3://company/handbook"],
    )
    events: str | None = Field(
        default=None,
        description="Queue of Amazon SQS with the event notifications of a source in S3. As long as it is read, "
        "changes are found at once, and the source is listed every hour. Default: the source is listed every 30 "
        "seconds.",
        examples=["https://sqs.eu-west-1.amazonaws.com/123456789012/handbook", "sqs://123456789012/handbook"],
    )
    state: str = Field(
        default=".ingest_pipeline",
        description="Folder of the files on this machine: the embedded Postgres, and Dagster's home.",
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
    columns: Mapping[str, str] = Field(
        default_factory=dict,
        description="Columns of the documents by name, with their types: string, int, float, bool, date, timestamp "
        "or list<string>.",
        examples=[{"department": "string", "year": "int", "tags": "list<string>"}],
    )
    chunk_columns: Mapping[str, str] = Field(
        default_factory=dict,
        description="Columns of which each chunk has its own value, by name, with their types. Enrichers of yours "
        "compute them.",
        examples=[{"topic": "string"}],
    )
    columns_from_key: str | None = Field(
        default=None,
        description="A pattern that reads values of columns from the keys of documents, or a regular expression that "
        "begins with ^ and has named groups.",
        examples=["{department}/{year}/**"],
    )
    columns_from_tags: Sequence[str] = Field(
        default=(),
        description="Columns that the tags of objects in S3 give values of. Tags are read when an object, its sidecar "
        "or the declaration of columns changes.",
        examples=[["department"]],
    )
    access: str | None = Field(
        default=None,
        description="The column of type list<string> with the principals that may find a document. A search without "
        "one of them does not find the document. none: lift the restriction of the corpus.",
        examples=["readers"],
    )
    require_principals: bool = Field(
        default=False, description="A search without principals raises an error, instead of finding nothing."
    )
    chunk_size: int = Field(default=1000, description="Characters in a chunk, at most; see `chunk_unit`.")
    chunk_overlap: int = Field(
        default=0, description="Characters that a chunk repeats of the one before it, at most; see `chunk_unit`."
    )
    chunk_unit: ChunkUnit = Field(
        default="characters",
        description="Whether chunk_size and chunk_overlap are characters, or tokens of the embedding model.",
        examples=["tokens"],
    )
    tokenizer: str | None = Field(
        default=None,
        description="What counts tokens: the file tokenizer.json of the embedding model, or cl100k_base, "
        "wordllama-l2-256 or bytes. Default: that of OpenAI's models and of the local one; of any other, a token for "
        "each byte.",
        examples=["models/e5/tokenizer.json"],
    )
    embedding_max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that the embedding model takes of one text, at most. Larger chunks are divided. Default: "
        "what the documentation of the model says; no limit for unknown models.",
        examples=[512],
    )
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
    retention_days: int = Field(
        default=DEFAULT_RETENTION.days, ge=0, description="Days for which a version is kept after it was head."
    )
    retention_publications: int = Field(
        default=DEFAULT_RETENTION.publications,
        ge=0,
        description="This many of the latest publications are kept, however old they are.",
    )

    @field_validator("corpus")
    @classmethod
    def _check_corpus(cls, value: str) -> str:
        with refusals():
            name = corpus_name(value)
            if "__" in f"{name}_":
                raise ConfigurationError(
                    f"The corpus name {name!r} has two underscores in a row, or ends in one, which names with a "
                    "key_prefix need",
                    "Correct INGEST_CORPUS.",
                )
            return name

    @field_validator("key_prefix")
    @classmethod
    def _check_key_prefix(cls, value: str | list[str] | None) -> str | None:
        parts = value.split("/") if isinstance(value, str) else value or []
        wrong = next((part for part in parts if not _PREFIX_PART.fullmatch(part)), None)
        if wrong is not None:
            with refusals():
                raise ConfigurationError(
                    f"key_prefix has the part {wrong!r}. Each part must be letters, digits and single underscores "
                    "between them",
                    "Correct INGEST_KEY_PREFIX.",
                )
        return "/".join(parts) or None

    @property
    def key_prefix_parts(self) -> tuple[str, ...]:
        """What precedes the name of the corpus in the keys of its assets."""
        return tuple(str(self.key_prefix).split("/")) if self.key_prefix else ()

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with refusals():
            if "://" in value:  # a path is checked where it is read, which may be another machine
                canonical_url(value)
        return value

    @model_validator(mode="after")
    def _check_events(self) -> Self:
        with refusals():
            if self.events:
                QueueAddress.parse(self.events)
                if not self.source.startswith("s3://"):
                    raise ConfigurationError(
                        "INGEST_EVENTS is set, and the source is not in S3", "Remove INGEST_EVENTS, or name s3://."
                    )
        return self

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

    @field_validator("embedding_prices")
    @classmethod
    def _check_prices(cls, value: str) -> str:
        with refusals():
            read_prices(value)
        return value

    @field_validator("enricher_prices")
    @classmethod
    def _check_enricher_prices(cls, value: str) -> str:
        with refusals():
            read_enricher_prices(value)
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

    @field_validator("parser", "chunker", "enricher", "embedder", "reranker", "gate", check_fields=False)
    @classmethod
    def _check_extensions(cls, value: object, info: ValidationInfo) -> tuple[Extension, ...]:
        with refusals():
            return read_extensions(str(info.field_name), value)

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, value: str | None) -> str | None:
        with refusals():
            return fallback_encoding(value) if value else None

    @field_validator("columns", "chunk_columns")
    @classmethod
    def _check_column_names(cls, value: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        with refusals():
            _ = parse_columns(value) if info.field_name == "columns" else parse_columns({}, of_chunks=value)
        return dict(value)

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


class CorpusOptions(GateOptions, _CoreOptions):
    """The options of a corpus. Relative paths are resolved by what reads the options."""

    @property
    def gates(self) -> GateSettings | None:
        """What a publication must pass; None if nothing is configured."""
        return GateSettings.of(self)


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


def absolute_location(location: str) -> str:
    """A local path made absolute, so that two ways to write it are not two locations. A url is returned unchanged."""
    return location if "://" in location else str(Path(location).absolute())


def default_dimensions(model: str) -> int:
    """Width of a model's vectors unless another one is configured."""
    return LOCAL_DIMENSIONS if model == LOCAL_MODEL else _OPENAI_DIMENSIONS
