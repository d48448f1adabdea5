"""The declared columns of a corpus."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from ingest_pipeline.columns.sources import KeyPattern
from ingest_pipeline.columns.values import (
    COLUMN_TYPES,
    LIST,
    WIDER_TYPES,
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
"""The values of one source. None: the document has no value, even if an earlier source has one."""

NOTHING_DECLARED: Mapping[str, str] = MappingProxyType({})
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
# In the metadata of a field of the table: the values are those of single chunks.
_OF, _CHUNK = b"ingest_pipeline.of", b"chunk"
_TAG_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Column:
    """One declared column."""

    name: str
    type: ColumnType
    of_chunk: bool = False
    """Whether each chunk has its own value. Otherwise all chunks of a document have the value of the document."""

    @property
    def field(self) -> pa.Field:
        """The Arrow field of the table. It is nullable, because a document or a chunk need not have a value."""
        return pa.field(self.name, arrow_type(self.type), metadata={_OF: _CHUNK} if self.of_chunk else None)

    def __str__(self) -> str:
        return f"{self.type} of a chunk" if self.of_chunk else self.type

    def widens_to(self, other: Column) -> bool:
        """Whether another declaration of the column keeps every value."""
        return self.of_chunk == other.of_chunk and (self.type == other.type or (self.type, other.type) in WIDER_TYPES)


@dataclass(frozen=True, slots=True)
class Columns:
    """The declared columns, in their order, and the pattern that reads values from keys."""

    columns: tuple[Column, ...] = ()
    pattern: KeyPattern | None = None
    from_tags: tuple[str, ...] = ()
    """Names of columns that tags of an object in S3 give values of."""

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
    def of_documents(self) -> Columns:
        """The columns whose values all chunks of a document share, with the sources of their values."""
        if not any(column.of_chunk for column in self.columns):
            return self
        return replace(self, columns=tuple(column for column in self.columns if not column.of_chunk))

    @property
    def of_chunks(self) -> Columns:
        """The columns of which each chunk has its own value. Enrichers compute them."""
        return Columns(tuple(column for column in self.columns if column.of_chunk))

    @property
    def fields(self) -> list[pa.Field]:
        """The columns as fields of the table."""
        return [column.field for column in self.columns]

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for declarations that give every document the same values."""
        of_chunks = self.of_chunks.names
        parts = [sorted(self.types.items()), self.pattern.text if self.pattern else None, sorted(self.from_tags)]
        parts += [sorted(of_chunks)] if of_chunks else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_TAG_CHARACTERS]

    def to_json(self) -> dict[str, Any]:
        """The declaration as the catalog records it."""
        pattern = self.pattern.text if self.pattern else None
        return {
            "columns": self.of_documents.types,
            "chunk_columns": self.of_chunks.types,
            "from_key": pattern,
            "from_tags": list(self.from_tags),
        }

    @classmethod
    def from_json(cls, recorded: Mapping[str, Any]) -> Columns:
        """The declaration that `to_json` made."""
        return parse_columns(
            recorded["columns"], recorded["from_key"], recorded["from_tags"], recorded["chunk_columns"]
        )

    def losses(self, other: Columns) -> list[str]:
        """What another declaration would do to this one, besides adding to it, in words."""
        kept = {column.name: column for column in other.columns}
        found = [f"drop the column {name!r}" for name in sorted(self.names) if name not in kept]
        for column in sorted(self.columns, key=lambda column: column.name):
            changed = kept.get(column.name, column)
            if not column.widens_to(changed):
                found.append(f"change the column {column.name!r} from {column} to {changed}")
        if self.pattern is not None and (other.pattern is None or other.pattern.text != self.pattern.text):
            now = f"by the pattern {other.pattern.text!r}" if other.pattern else "no more"
            found.append(f"read values from keys {now} instead of by {self.pattern.text!r}")
        untagged = [name for name in self.from_tags if name not in other.from_tags and name in kept]
        return [*found, *(f"read the column {name!r} from tags no more" for name in untagged)]

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

    def tags(self, document: str, tags: Mapping[str, str]) -> SourceValues:
        """Check values from tags, which S3 allows no commas: of a list, spaces separate the items."""
        raw = {name: tags[name] for name in self.from_tags if name in tags}
        lists = {name: ",".join(text.split()) for name, text in raw.items() if self.types[name] == LIST}
        return self.texts(document, "the tags of its object", raw | lists)

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
        """The values of some rows as Arrow arrays, by column."""
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


def parse_columns(
    declared: Mapping[str, str],
    pattern: str | None = None,
    from_tags: Sequence[str] = (),
    of_chunks: Mapping[str, str] = NOTHING_DECLARED,
) -> Columns:
    """Read the options `columns`, `columns_from_key`, `columns_from_tags` and `chunk_columns`.

    Raises:
        ConfigurationError: A name or a type is not allowed, both options declare a column, or the pattern or a tag
            names no declared column of documents.
    """
    if len(declared) + len(of_chunks) > _MAX_COLUMNS:
        raise ConfigurationError(
            f"INGEST_COLUMNS and INGEST_CHUNK_COLUMNS declare {len(declared) + len(of_chunks)} columns",
            f"Declare at most {_MAX_COLUMNS}.",
        )
    if twice := sorted(declared.keys() & of_chunks.keys()):
        raise ConfigurationError(
            f"INGEST_COLUMNS and INGEST_CHUNK_COLUMNS both declare the column {twice[0]!r}",
            "Declare it in one of them.",
        )
    of_documents = [_column("INGEST_COLUMNS", name, kind) for name, kind in declared.items()]
    columns = (
        *of_documents,
        *(_column("INGEST_CHUNK_COLUMNS", name, kind, of_chunk=True) for name, kind in of_chunks.items()),
    )
    found = KeyPattern.parse(pattern, [column.name for column in of_documents]) if pattern else None
    if unknown := sorted(set(from_tags) - declared.keys()):
        raise ConfigurationError(
            f"INGEST_COLUMNS_FROM_TAGS names the undeclared column {unknown[0]!r}", "Declare it in INGEST_COLUMNS."
        )
    return Columns(columns, found, tuple(from_tags))


def columns_of(schema: pa.Schema, own: Iterable[str]) -> Columns:
    """The columns of the user's in a table.

    Args:
        schema: The schema of the table.
        own: Names of the columns that every corpus has, which are skipped.
    """
    skipped = set(own)
    found: list[tuple[pa.Field, ColumnType | None]] = [
        (field, type_of(field.type)) for field in schema if field.name not in skipped
    ]
    return Columns(
        tuple(
            Column(field.name, kind, (field.metadata or {}).get(_OF) == _CHUNK)
            for field, kind in found
            if kind is not None
        )
    )


def check_access(columns: Columns, access: str | None, *, required: bool) -> None:
    """Check the options `access` and `require_principals`.

    Raises:
        ConfigurationError: The column is not declared as a list or comes from tags, or principals are required without
            it.
    """
    if required and access in (None, NO_ACCESS):
        raise ConfigurationError(
            "INGEST_REQUIRE_PRINCIPALS is set without INGEST_ACCESS",
            "Name the column with the principals in INGEST_ACCESS.",
        )
    if access in columns.from_tags:
        raise ConfigurationError(
            f"INGEST_COLUMNS_FROM_TAGS names the column {access!r} of INGEST_ACCESS, and a listing does not show that "
            "the tags of an object changed, so a principal could not be removed",
            "Keep the principals in sidecars or in the metadata of objects.",
        )
    if access not in (None, NO_ACCESS) and columns.of_documents.types.get(access) != LIST:
        raise ConfigurationError(
            f"INGEST_ACCESS is {access!r}, which is not a declared column of type {LIST}",
            f"Declare it in INGEST_COLUMNS, such as {json.dumps({access: LIST})}.",
        )


def check_tags(columns: Columns, source: str) -> None:
    """Check the option `columns_from_tags`.

    Raises:
        ConfigurationError: The source has no tags.
    """
    if columns.from_tags and not source.startswith("s3://"):
        raise ConfigurationError(
            "INGEST_COLUMNS_FROM_TAGS is set, and only objects in S3 have tags that can be read",
            "Use sidecars or the metadata of objects instead.",
        )


def canonical(values: Mapping[str, Value] | None) -> str:
    """One string for equal values."""
    return json.dumps(values or {}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _column(option: str, name: str, kind: str, *, of_chunk: bool = False) -> Column:
    if not _NAME.fullmatch(name) or name in _OWN | _KEYWORDS:
        raise ConfigurationError(
            f"{option} names a column {name!r}, which is not lower-case letters, digits and underscores, or "
            "has another meaning in a table or a filter",
            "Choose another name.",
        )
    found: ColumnType | None = next((known for known in COLUMN_TYPES if known == kind.replace(" ", "")), None)
    if found is None:
        raise ConfigurationError(
            f"{option} gives the column {name!r} the type {kind!r}", f"The types are {', '.join(COLUMN_TYPES)}."
        )
    return Column(name, found, of_chunk)


def _checked(document: str, source: str, column: Column, value: object) -> Value | None:
    try:
        return None if value is None else checked(column.type, value)
    except ValueError as error:
        raise _wrong(document, source, column, value) from error


def _wrong(document: str, source: str, column: Column, value: object) -> ColumnValueError:
    shown = f"the value {reprlib.repr(value)} of column {column.name!r} in {source}"
    return ColumnValueError(document, f"has {shown}, which is not of type {column.type}")
