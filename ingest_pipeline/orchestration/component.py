"""A corpus as a Dagster Component: some lines of YAML, which `dg` lists, scaffolds and checks."""

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.config import check_lancedb_uri, default_dimensions, own_folders
from ingest_pipeline.embedding.base import check_endpoint
from ingest_pipeline.embedding.local import LOCAL_MODEL
from ingest_pipeline.embedding.pricing import read_prices
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.context import PipelineSettings
from ingest_pipeline.orchestration.build import DefinitionOptions, corpus_definitions
from ingest_pipeline.parsing.text_decoding import fallback_encoding
from ingest_pipeline.partitioning import PartitionScheme
from ingest_pipeline.postgres.url import database_url, holds_password
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import CorpusResources
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.source import DocumentSourceResource
from ingest_pipeline.sources.filters import Selection
from ingest_pipeline.sources.local import FollowLinks
from ingest_pipeline.sources.object_store import canonical_url
from ingest_pipeline.spending_limits import DEFAULT_LIMITS, SpendingLimits
from ingest_pipeline.types import DEFAULT_RETENTION, OnUnreadable, Retention, corpus_name

_VARIABLE = re.compile(r"INGEST_([A-Z_]+)")
_ENV = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*['"](\w+)['"]\s*\))\s*\}\}""")


def _from_environment(_: dg.ResolutionContext, value: str | None) -> dg.EnvVar | str | None:
    """The name of the variable in place of its value, so that a secret is read by the run and shown by no page."""
    found = _ENV.fullmatch(value.strip()) if value else None
    return dg.EnvVar(found[1] or found[2]) if found else value


@contextmanager
def _said_of_attributes() -> Generator[None]:
    """Raise what pydantic reports, with the names of attributes in place of variables of the environment."""
    try:
        yield
    except ConfigurationError as error:
        raise ValueError(_VARIABLE.sub(lambda found: found[1].lower(), str(error))) from None


class _HidesValues(BaseModel):
    """A model whose errors show no values. Dagster writes errors anew, and does not know of pydantic's own setting."""

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            lines = [
                InitErrorDetails(type=line["type"], loc=line["loc"], ctx=line.get("ctx", {}), input="(hidden)")
                for line in found
            ]
            raise ValidationError.from_exception_data(error.title, lines) from None


@cache
def _without_values(model: type[BaseModel]) -> type[BaseModel]:
    return create_model(model.__name__, __base__=(_HidesValues, model))


def _about(description: str, *examples: object) -> dg.Resolver:
    resolver: dg.Resolver = dg.Resolver.default(description=description, examples=list(examples))
    return resolver


def _secret(description: str, *examples: object) -> dg.Resolver:
    return dg.Resolver(
        _from_environment,
        model_field_type=str | None,
        inject_before_resolve=False,
        description=description,
        examples=list(examples),
    )


class IngestPipelineScaffoldParams(BaseModel):
    """What `dg scaffold defs ingest_pipeline.IngestPipelineComponent NAME` takes."""

    source: str = Field(default="documents", description="The files: a path, or a url of a bucket with a prefix.")


class IngestPipelineScaffolder(dg.Scaffolder[IngestPipelineScaffoldParams]):
    """Writes a `defs.yaml` that passes the checks, for a corpus named as its folder."""

    @classmethod
    def get_scaffold_params(cls) -> type[IngestPipelineScaffoldParams]:
        return IngestPipelineScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[IngestPipelineScaffoldParams]) -> None:
        name = re.sub(r"\W+", "_", request.target_path.name.lower()).lstrip("_0123456789")
        scaffold_component(request, {"corpus": name or "documents", "source": request.params.source})


@dg.scaffold_with(IngestPipelineScaffolder)
class IngestPipelineComponent(dg.Component, dg.Model, dg.Resolvable):
    """Files in a folder or bucket become a searchable LanceDB table and a Postgres catalog that always agree.

    Three assets, `CORPUS/chunks`, `CORPUS/embeddings` and `CORPUS/metadata`, made by one step with one partition for
    each document; a sensor that keeps them equal to the source, and one that settles what dead writers left; schedules
    for the audit and the sweep; asset checks. A location may hold many corpora.
    """

    # An error names the attribute, and does not repeat a value that may be a secret.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    corpus: Annotated[
        str,
        _about("Name of the corpus, of its LanceDB table, and the beginning of all its names in Dagster.", "handbook"),
    ]
    source: Annotated[
        str,
        _about(
            "The files: a path, under the project if it is relative, or s3://, gs:// or az:// with bucket and prefix.",
            "documents",
            "s3://company/handbook",
        ),
    ]
    lancedb_uri: Annotated[
        str | None,
        _about("Folder of the LanceDB tables: a path or an object-store url. Default: `lancedb` under `state`."),
    ] = None
    database_url: Annotated[
        dg.EnvVar | str | None,
        _secret(
            "Postgres of the catalog, as a variable of the environment: a password may not stand here. Default: an "
            "embedded Postgres under `state`.",
            "{{ env.HANDBOOK_DATABASE_URL }}",
        ),
    ] = None
    state: Annotated[
        str, _about("Folder for what stays on this machine, under the project if it is relative.", ".ingest_pipeline")
    ] = ".ingest_pipeline"
    partition_by: Annotated[
        str, _about("How documents are shared out among partitions.", "file", "folder", "folder:2", "bucket:64")
    ] = "file"
    include: Annotated[
        Sequence[str], _about("Patterns of the documents to take, as in a .gitignore. Default: all.", ["*.md"])
    ] = ()
    exclude: Annotated[Sequence[str], _about("Patterns of the documents to leave out of these.", ["drafts/"])] = ()
    max_bytes: Annotated[int | None, _about("Largest object to take. Default: any.")] = None
    min_age_seconds: Annotated[
        int, _about("The source sensor leaves files alone that were modified so little time ago.")
    ] = 5
    follow_links: Annotated[
        FollowLinks, _about("Which links of a local folder are followed: those that stay within it, all, or none.")
    ] = "inside"
    on_unreadable: Annotated[
        OnUnreadable,
        _about("Whether runs skip files that cannot be read, and list them, or fail when the rest is done.", "fail"),
    ] = "skip"
    encoding: Annotated[
        str | None,
        _about("Of text that is neither UTF-8 nor carries a byte order mark. Default: it cannot be read.", "cp1252"),
    ] = None
    chunk_size: Annotated[int, _about("Characters in a chunk, at most.")] = 1000
    chunk_overlap: Annotated[int, _about("Characters that a chunk repeats of the one before it.")] = 0
    embedding_model: Annotated[
        str, _about("Name of the embedding model. The default runs on this machine.", "text-embedding-3-small")
    ] = LOCAL_MODEL
    embedding_dimensions: Annotated[
        int | None, _about("Width of the vectors. Default: 256 for the local model, 1536 for any other.")
    ] = None
    embedding_base_url: Annotated[
        str | None, _about("Endpoint of an API that speaks OpenAI's protocol, instead of OPENAI_BASE_URL.")
    ] = None
    embedding_api_key: Annotated[
        dg.EnvVar | str | None,
        _secret("Its key, as a variable of the environment, instead of OPENAI_API_KEY.", "{{ env.HANDBOOK_API_KEY }}"),
    ] = None
    embedding_concurrency: Annotated[int, _about("Requests under way at once, in one run.")] = 16
    embedding_pool: Annotated[
        str,
        _about(
            "Dagster's pool of the runs that send requests. Its limit, times the requests of a run, bounds them all."
        ),
    ] = "embedding_api"
    embedding_prices: Annotated[
        str, _about("What models cost, as INGEST_EMBEDDING_PRICES says it. Default: no cost is shown.")
    ] = ""
    max_chunks: Annotated[int, _about("Chunks of a document, at most; 0: any number.")] = (
        DEFAULT_LIMITS.chunks_per_document or 0
    )
    max_tokens_per_run: Annotated[
        int, _about("Tokens that one run may buy from a paid model, at most; 0: any number.")
    ] = DEFAULT_LIMITS.tokens_per_run or 0
    max_tokens_per_day: Annotated[
        int, _about("Tokens that all runs of the corpus may buy on a day of UTC, at most; 0: any number.")
    ] = DEFAULT_LIMITS.tokens_per_day or 0
    owners: Annotated[
        Sequence[str], _about("Who answers for the assets: addresses, or `team:NAME`.", ["team:data"])
    ] = ()
    group: Annotated[str | None, _about("Group of the assets. Default: the corpus.")] = None
    executor: Annotated[
        Literal["in_process", "code_location"],
        _about(
            "Who executes a materialization from the UI. `in_process` is then the default of the whole location, and "
            "contradicts an executor that the project names itself; with `code_location` that one is used."
        ),
    ] = "in_process"
    source_sensor: Annotated[
        bool, _about("Whether the sensor for new, changed and removed files begins switched on.")
    ] = True
    recovery_sensor: Annotated[
        bool, _about("Whether the sensor that settles what dead writers left begins switched on.")
    ] = True
    batch_sensor: Annotated[
        bool, _about("Whether the sensor that collects vectors ordered in bulk begins switched on.")
    ] = True
    audit_schedule: Annotated[bool, _about("Whether the hourly audit of the whole corpus begins switched on.")] = False
    retention_days: Annotated[int, _about("Days that a version stays after it ceased to be head.")] = (
        DEFAULT_RETENTION.days
    )
    retention_publications: Annotated[int, _about("So many of the last publications stay, however old.")] = (
        DEFAULT_RETENTION.publications
    )
    maintenance_schedule: Annotated[bool, _about("Whether the hourly maintenance begins switched on.")] = True
    stale_schedule: Annotated[
        bool,
        _about("Whether the nightly ingestion of all that differs begins switched on; the sensor does it all day."),
    ] = False

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="Files in object storage as a LanceDB table and a Postgres catalog that never disagree.",
            tags=["lancedb", "postgres", "embeddings", "ingestion"],
        )

    @classmethod
    def model(cls) -> type[BaseModel]:
        """What Dagster validates the YAML by, before it makes the component."""
        return _without_values(super().model())

    @field_validator("corpus")
    @classmethod
    def _check_corpus(cls, value: str) -> str:
        with _said_of_attributes():
            return corpus_name(value)

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        with _said_of_attributes():
            if "://" in value:  # a path is looked for by those who read it, maybe on another machine
                canonical_url(value)
        return value

    @field_validator("lancedb_uri")
    @classmethod
    def _check_lancedb_uri(cls, value: str | None) -> str | None:
        with _said_of_attributes():
            return value and check_lancedb_uri(value)

    @field_validator("embedding_base_url")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        with _said_of_attributes():
            return value and check_endpoint(value, "embedding_base_url")

    @field_validator("include", "exclude")
    @classmethod
    def _check_patterns(cls, value: Sequence[str]) -> Sequence[str]:
        with _said_of_attributes():
            Selection(value)
        return value

    @field_validator("partition_by")
    @classmethod
    def _check_scheme(cls, value: str) -> str:
        with _said_of_attributes():
            return str(PartitionScheme.parse(value))

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, value: str | None) -> str | None:
        try:
            return None if value is None else fallback_encoding(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error

    @field_validator("embedding_prices")
    @classmethod
    def _check_prices(cls, value: str) -> str:
        with _said_of_attributes():
            read_prices(value)
        return value

    @field_validator("max_bytes", "embedding_dimensions", "embedding_concurrency")
    @classmethod
    def _check_positive(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator(
        "min_age_seconds",
        "max_chunks",
        "max_tokens_per_run",
        "max_tokens_per_day",
        "retention_days",
        "retention_publications",
    )
    @classmethod
    def _check_not_negative(cls, value: int) -> int:
        if value < 0:
            raise ValueError("must be at least 0")
        return value

    @field_validator("database_url")
    @classmethod
    def _check_no_password(cls, value: dg.EnvVar | str | None) -> dg.EnvVar | str | None:
        if isinstance(value, str) and not isinstance(value, dg.EnvVar):
            if holds_password(value):
                raise ValueError("holds a password; name a variable instead: {{ env.DATABASE_URL }}")
            with _said_of_attributes():
                database_url(value, "database_url")
        return value

    @field_validator("embedding_api_key")
    @classmethod
    def _check_no_key(cls, value: dg.EnvVar | str | None) -> dg.EnvVar | str | None:
        if value is not None and not isinstance(value, dg.EnvVar):
            raise ValueError("is a secret; name a variable instead: {{ env.OPENAI_API_KEY }}")
        return value

    @model_validator(mode="after")
    def _check_chunks(self) -> Self:
        with _said_of_attributes():
            Chunker(self.chunk_size, self.chunk_overlap)
        return self

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the corpus."""
        pipeline = self._pipeline(context.project_root)
        return corpus_definitions(pipeline, self._resources(pipeline, context.project_root), self._options())

    def _pipeline(self, root: Path) -> PipelineSettings:
        source = _under(root, self.source)
        lancedb_uri = _under(root, self.lancedb_uri or f"{self.state}/lancedb").rstrip("/")
        return PipelineSettings(
            self.corpus,
            source,
            lancedb_uri,
            self.embedding_model,
            self.embedding_dimensions or default_dimensions(self.embedding_model),
            self.chunk_size,
            self.chunk_overlap,
            self.partition_by,
            tuple(self.include),
            (*self.exclude, *own_folders(source, lancedb_uri, root / self.state, os.environ.get("DAGSTER_HOME"))),
            self.max_bytes,
            self.min_age_seconds,
            read_prices(self.embedding_prices),
            Retention(self.retention_days, self.retention_publications),
            SpendingLimits.of(self.max_chunks, self.max_tokens_per_run, self.max_tokens_per_day),
            self.follow_links,
            self.on_unreadable,
            self.encoding,
        )

    def _resources(self, pipeline: PipelineSettings, root: Path) -> CorpusResources:
        postgres = _under(root, f"{self.state}/postgres")
        catalog = PostgresCatalogResource(url=self.database_url, embedded_directory=postgres)
        return CorpusResources(
            catalog=catalog,
            source=DocumentSourceResource(url=pipeline.source),
            lancedb=VersionedLanceDBResource(uri=pipeline.lancedb_uri, catalog=catalog),
            embedder=OpenAIEmbedderResource(
                model=pipeline.embedding_model,
                dimensions=pipeline.embedding_dimensions,
                base_url=self.embedding_base_url,
                api_key=self.embedding_api_key,
                concurrency=self.embedding_concurrency,
            ),
        )

    def _options(self) -> DefinitionOptions:
        return DefinitionOptions(
            owners=self.owners,
            group=self.group,
            pool=self.embedding_pool,
            executor=dg.in_process_executor if self.executor == "in_process" else None,
            source_sensor=self.source_sensor,
            recovery_sensor=self.recovery_sensor,
            batch_sensor=self.batch_sensor,
            audit_schedule=self.audit_schedule,
            maintenance_schedule=self.maintenance_schedule,
            stale_schedule=self.stale_schedule,
        )


def _under(root: Path, place: str) -> str:
    """A local path as an absolute one, whatever folder the process was started in; a url as it is."""
    return place if "://" in place else str(root / place)
