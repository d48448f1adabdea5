"""A corpus as a Dagster component: a few lines of YAML that `dg` lists, scaffolds and checks."""

import re
from copy import copy
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
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
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from ingest_pipeline.chunking.tokenizer import TOKENIZERS
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.options.checks import refusals
from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.orchestration.build import DagsterOptions, build_resources, corpus_definitions
from ingest_pipeline.postgres.url import database_url, holds_password

_ENV = re.compile(r"""\{\{\s*env(?:\.(\w+)|\(\s*['"](\w+)['"]\s*\))\s*\}\}""")
_PATHS = ("source", "state", "lancedb_uri")
_SECRETS = {"database_url", "embedding_api_key"}


def _from_environment(_: dg.ResolutionContext, value: str | None) -> dg.EnvVar | str | None:
    """Keep the name of the variable instead of its value, so that the run reads the secret and no page shows it."""
    found = _ENV.fullmatch(value.strip()) if value else None
    return dg.EnvVar(found[1] or found[2]) if found else value


_SECRET = dg.Resolver(_from_environment, model_field_type=str | None, inject_before_resolve=False)


def _template_variables(asset: str) -> dict[str, str]:
    return {"asset": asset}


class _HidesValues(BaseModel):
    """A model whose errors show no values. Dagster rewrites pydantic's errors and ignores `hide_input_in_errors`."""

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


class IngestPipelineScaffoldParams(BaseModel):
    """Parameters of `dg scaffold defs ingest_pipeline.IngestPipelineComponent NAME`."""

    source: str = Field(default="documents", description=CorpusOptions.model_fields["source"].description)


class IngestPipelineScaffolder(dg.Scaffolder[IngestPipelineScaffoldParams]):
    """Writes a `defs.yaml` that passes the checks, for a corpus that is named after its folder."""

    @classmethod
    def get_scaffold_params(cls) -> type[IngestPipelineScaffoldParams]:
        return IngestPipelineScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[IngestPipelineScaffoldParams]) -> None:
        name = re.sub(r"\W+", "_", request.target_path.name.lower()).lstrip("_0123456789")
        scaffold_component(request, {"corpus": name or "documents", "source": request.params.source})


@dg.scaffold_with(IngestPipelineScaffolder)
class IngestPipelineComponent(CorpusOptions, DagsterOptions, dg.Component, dg.Resolvable):
    """Files in a folder or bucket become a searchable LanceDB table and a Postgres catalog that always agree.

    The component defines three assets, `CORPUS/chunks`, `CORPUS/embeddings` and `CORPUS/metadata`, which one step
    materializes together with one partition per document. `CORPUS/head` has no partitions, for assets that read it all.
    A sensor keeps them up to date with the source, another one settles the sagas of dead writers. Schedules run the
    audit and the maintenance, and asset checks report problems. A code location may hold many corpora.
    """

    # Resolved by Dagster, so the value may be the name of a variable.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    database_url: Annotated[dg.EnvVar | str | None, _SECRET] = Field(
        default=None,
        repr=False,
        description=f"{CorpusOptions.model_fields['database_url'].description} A url with a password has to be the "
        "name of a variable.",
        examples=["{{ env.HANDBOOK_DATABASE_URL }}"],
    )
    embedding_api_key: Annotated[dg.EnvVar | str | None, _SECRET] = Field(
        default=None,
        repr=False,
        description=f"{CorpusOptions.model_fields['embedding_api_key'].description} It has to be the name of a "
        "variable.",
        examples=["{{ env.HANDBOOK_API_KEY }}"],
    )

    translation: Annotated[TranslationFn[str], TranslationFnResolver[str](_template_variables)] | None = Field(
        default=None,
        description=DagsterOptions.model_fields["translation"].description,
        examples=[{"tags": {"layer": "{{ asset }}"}}],
    )

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="Files in object storage as a LanceDB table and a Postgres catalog that always agree.",
            tags=["lancedb", "postgres", "embeddings", "ingestion"],
        )

    @classmethod
    def model(cls) -> type[BaseModel]:
        """The model with which Dagster validates the YAML before it creates the component."""
        return _described(super().model(), cls)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: dg.EnvVar | str | None) -> dg.EnvVar | str | None:
        if isinstance(value, str) and not isinstance(value, dg.EnvVar):
            if holds_password(value):
                raise ValueError("contains a password; name a variable instead: {{ env.DATABASE_URL }}")
            with refusals():
                database_url(value, "database_url")
        return value

    @field_validator("embedding_api_key")
    @classmethod
    def _check_no_key(cls, value: dg.EnvVar | str | None) -> dg.EnvVar | str | None:
        if value is not None and not isinstance(value, dg.EnvVar):
            raise ValueError("is a secret; name a variable instead: {{ env.OPENAI_API_KEY }}")
        return value

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions of the corpus."""
        config = self.config(context.project_root)
        resources = build_resources(config, database_url=self.database_url, embedding_api_key=self.embedding_api_key)
        return corpus_definitions(config, resources, self)

    def config(self, root: Path) -> CorpusConfig:
        """The configuration of the corpus, with paths below the root of the project and without secrets."""
        names = CorpusOptions.model_fields.keys() - _SECRETS
        values = {name: getattr(self, name) for name in names}
        paths = {name: _under(root, values[name]) for name in _PATHS}
        if self.tokenizer is not None and self.tokenizer not in TOKENIZERS:
            paths["tokenizer"] = _under(root, self.tokenizer)
        if self.golden_set is not None:
            paths["golden_set"] = _under(root, self.golden_set)
        return CorpusConfig.model_validate(values | paths)


@cache
def _described(model: type[BaseModel], component: type[BaseModel]) -> type[BaseModel]:
    """Dagster's model of a component, plus the fields' descriptions, which Dagster drops; its errors show no values."""
    fields: dict[str, Any] = {
        name: (
            field.annotation,
            _with_words_of(component.model_fields[name], field),
        )
        for name, field in model.model_fields.items()
    }
    return create_model(model.__name__, __base__=(_HidesValues, model), **fields)


def _with_words_of(described: FieldInfo, field: FieldInfo) -> FieldInfo:
    merged = copy(field)
    merged.description, merged.examples = described.description, described.examples
    # The component itself checks the bounds. Checked here too, each violation would be reported twice.
    merged.metadata = []
    return merged


def _under(root: Path, location: str) -> str:
    """A local path below the root, whichever folder the process was started in. A url is returned unchanged."""
    return location if "://" in location else str(root / location)
