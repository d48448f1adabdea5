"""Options of a corpus: columns of the user, and who may find which documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from ingest_pipeline.columns.declaration import parse_columns
from ingest_pipeline.config.options.checks import refusals


class ColumnOptions(BaseModel):
    """The options of a corpus that are about columns and access."""

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

    @field_validator("columns", "chunk_columns")
    @classmethod
    def _check_column_names(cls, value: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        with refusals():
            _ = parse_columns(value) if info.field_name == "columns" else parse_columns({}, of_chunks=value)
        return dict(value)
