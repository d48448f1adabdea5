"""The declared columns of a corpus."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from ingest_pipeline.columns.sources import KeyPattern
from ingest_pipeline.columns.values import (
    COLUMN_TYPES,
    LIST,
    ColumnType,
    Value,
    arrow_type,
    checked,
    checked_text,
    from_arrow,
    to_arrow,
    type_of,
)
from ingest_pipeline.errors import ColumnValueError, ConfigurationError

Values = dict[str, Value]
"""The values of a document by column, in canonical form. A column without a value is absent."""
SourceValues = dict[str, Value | None]
"""The values that one source gives. None: the source says that there is no value, whatever other sources say."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
NO_ACCESS = "none"
"""The value of the option `access` that lifts a restriction."""
# Columns of the table, and the catalog's columns that a search can filter by.
_OWN = frozenset(
    {
        "chunk_count", "document", "end_offset", "header", "heading", "headings", "id", "key", "last_modified",
        "last_page", "ordinal", "page", "partition", "published_version", "saga", "size", "start_offset", "text",
        "text_hash", "vector",
    }
)  # fmt: skip
# Words that Lance's filters do not read as a column's name.
_KEYWORDS = frozenset(
    {
        "all", "and", "any", "as", "between", "case", "cast", "current_date", "current_time", "current_timestamp",
        "else", "end", "escape", "exists", "false", "has", "in", "interval", "is", "like", "not", "null", "or",
        "select", "some", "then", "trim", "true", "when", NO_ACCESS,
    }
)  # fmt: skip
_MAX_COLUMNS = 100
_TAG_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column."""

    name: str
    type: ColumnType

    @property
    def field(self) -> pa.Field:
        """The column of the table. It is nullable: a document need not have a value."""
        return pa.field(self.name, arrow_type(self.type))


@dataclass(frozen=True, slots=True)
class Columns:
    """The declared columns, in their order, and the pattern that reads values from keys."""

    columns: tuple[Column, ...] = ()
    pattern: KeyPattern | None = None

    def __bool__(self) -> bool:
        return bool(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the declaration."""
        return tuple(column.name for column in self.columns)

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of each column."""
        return {column.name: column.type for column in self.columns}

    @property
    def fields(self) -> list[pa.Field]:
        """The columns as fields of the table."""
        return [column.field for column in self.columns]

    @property
    def fingerprint(self) -> str:
        """Equal for declarations that give every document the same values."""
        parts = [sorted(self.types.items()), self.pattern.text if self.pattern else None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_TAG_CHARACTERS]

    def tag(self, sidecar_etag: str | None, modified: datetime | None) -> str:
        """A short string that differs if the declaration or a source of values, other than the document, differs.

        Args:
            sidecar_etag: ETag of the document's sidecar, None if there is none.
            modified: When the object was modified, if the store may keep metadata with it: a change of the metadata
                keeps the ETag, and writes the object again. Its whole seconds count: not every answer has more.
        """
        if not self:
            return ""
        parts = [self.fingerprint, sidecar_etag, int(modified.timestamp()) if modified else None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_TAG_CHARACTERS]

    def typed(self, document: str, source: str, raw: Mapping[str, object]) -> SourceValues:
        """Check values that have types, such as those of JSON. Names that are not declared are ignored.

        Args:
            document: Key of the document, for the error.
            source: Where the values come from, for the error.
            raw: Values by name.

        Raises:
            ColumnValueError: A value does not fit its column.
        """
        return {
            column.name: _checked(document, source, column, raw[column.name])
            for column in self.columns
            if column.name in raw
        }

    def texts(self, document: str, source: str, raw: Mapping[str, str]) -> SourceValues:
        """Check values from a source that has only strings. The arguments are those of `typed`."""
        found: SourceValues = {}
        for column in self.columns:
            if (text := raw.get(column.name)) is not None:
                try:
                    found[column.name] = checked_text(column.type, text)
                except ValueError as error:
                    raise _wrong(document, source, column, text) from error
        return found

    def conform(self, values: Mapping[str, Value] | None) -> Values:
        """The part of recorded values that fits this declaration, which may have changed since they were recorded."""
        found: Values = {}
        for column in self.columns:
            value = (values or {}).get(column.name)
            if value is None:
                continue
            try:
                found[column.name] = checked(column.type, value)
            except ValueError:
                continue
        return found

    def arrays(self, rows: Iterable[Mapping[str, Value] | None]) -> dict[str, pa.Array]:
        """The columns of the table for some rows, by name."""
        values = [row or {} for row in rows]
        return {
            column.name: pa.array(
                [to_arrow(column.type, row.get(column.name)) for row in values], arrow_type(column.type)
            )
            for column in self.columns
        }

    def of_row(self, row: Mapping[str, object]) -> Values:
        """The values of a row that was read from the table."""
        found = {column.name: from_arrow(column.type, row.get(column.name)) for column in self.columns}
        return {name: value for name, value in found.items() if value is not None}


NO_COLUMNS = Columns()


def parse_columns(declared: Mapping[str, str], pattern: str | None = None) -> Columns:
    """Read the options `columns` and `columns_from_key`.

    Raises:
        ConfigurationError: A name or a type is not allowed, or the pattern names no declared column.
    """
    if len(declared) > _MAX_COLUMNS:
        raise ConfigurationError(f"There are {len(declared)} columns", f"Declare {_MAX_COLUMNS} at most.")
    columns = tuple(_column(name, kind) for name, kind in declared.items())
    return Columns(columns, KeyPattern.parse(pattern, [column.name for column in columns]) if pattern else None)


def columns_of(schema: pa.Schema, own: Iterable[str]) -> Columns:
    """The columns of the user's in a table.

    Args:
        schema: Of the table.
        own: Names of the columns that every corpus has.
    """
    skipped = set(own)
    found: list[tuple[str, ColumnType | None]] = [
        (field.name, type_of(field.type)) for field in schema if field.name not in skipped
    ]
    return Columns(tuple(Column(name, kind) for name, kind in found if kind is not None))


def check_access(columns: Columns, access: str | None, *, required: bool) -> None:
    """Check the options `access` and `require_principals`.

    Raises:
        ConfigurationError: The column is not declared as a list, or principals are required without it.
    """
    if required and access in (None, NO_ACCESS):
        raise ConfigurationError(
            "INGEST_REQUIRE_PRINCIPALS is set without INGEST_ACCESS",
            "Name the column with the principals in INGEST_ACCESS.",
        )
    if access not in (None, NO_ACCESS) and columns.types.get(access) != LIST:
        raise ConfigurationError(
            f"INGEST_ACCESS is {access!r}, which is no column of type {LIST}",
            f"Declare it in INGEST_COLUMNS, such as {json.dumps({access: LIST})}.",
        )


def canonical(values: Mapping[str, Value] | None) -> str:
    """One string for equal values."""
    return json.dumps(values or {}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _column(name: str, kind: str) -> Column:
    if not _NAME.fullmatch(name) or name in _OWN | _KEYWORDS:
        raise ConfigurationError(
            f"INGEST_COLUMNS names a column {name!r}, which is not lower-case letters, digits and underscores, or "
            "has another meaning in a table or a filter",
            "Choose another name.",
        )
    found: ColumnType | None = next((known for known in COLUMN_TYPES if known == kind.replace(" ", "")), None)
    if found is None:
        raise ConfigurationError(
            f"INGEST_COLUMNS gives the column {name!r} the type {kind!r}", f"The types are {', '.join(COLUMN_TYPES)}."
        )
    return Column(name, found)


def _checked(document: str, source: str, column: Column, value: object) -> Value | None:
    try:
        return None if value is None else checked(column.type, value)
    except ValueError as error:
        raise _wrong(document, source, column, value) from error


def _wrong(document: str, source: str, column: Column, value: object) -> ColumnValueError:
    return ColumnValueError(
        document,
        f"has the value {reprlib.repr(value)} of column {column.name!r} in {source}, which is no {column.type}",
    )
