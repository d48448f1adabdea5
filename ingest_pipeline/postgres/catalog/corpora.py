"""Corpora and their generations: settings, state and head.

Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from psycopg.errors import CheckViolation, UniqueViolation
from psycopg.types.json import Jsonb

from ingest_pipeline.errors import ConfigurationError, ConflictError, TableInUseError
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.rows import row_of
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Recipe


class GenerationState(StrEnum):
    """The state of a generation."""

    BUILDING = "building"
    """Not yet visible to readers."""
    CURRENT = "current"
    """The generation that readers see."""
    RETIRED = "retired"
    """Replaced or aborted, kept for a week."""
    DROPPED = "dropped"
    """Its table and rows are deleted."""


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation of a corpus, its binding and its head."""

    name: str
    """Name of the generation and of its LanceDB table."""
    corpus: str
    """Name of the corpus."""
    state: GenerationState
    table_uri: str
    source: str | None
    partition_by: str | None
    embedding: str | None
    head_version: int
    head_saga: UUID
    staged_manifest: str | None = field(default=None, compare=False)
    """Private name of the manifest of head, until the manifest is installed. None: the version was visible at once."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a corpus, as `status` shows it."""

    name: str
    state: GenerationState
    state_since: datetime
    embedding: str | None
    head_version: int
    table_uri: str
    documents: int


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """One generation, as a list of all corpora shows it."""

    corpus: str
    name: str
    state: GenerationState
    table_uri: str
    source: str | None
    partition_by: str | None
    embedding: str | None
    head_version: int
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class GenerationDifference:
    """A document whose rows differ between two generations."""

    key: str
    partition: str
    old_saga: UUID | None
    """None: the old generation does not contain the document."""
    new_etag: str | None
    """None: the new generation does not contain the document."""


def read_generation(connection: Connection, name: str) -> GenerationRow | None:
    """Return the generation of that name, None if there is none."""
    with connection.cursor(row_factory=row_of(GenerationRow)) as cursor:
        return cursor.execute(query("read_generation"), {"name": name}).fetchone()


def read_current(connection: Connection, corpus: str) -> GenerationRow | None:
    """Return the generation of a corpus that readers see, None if there is no such corpus."""
    with connection.cursor(row_factory=row_of(GenerationRow)) as cursor:
        return cursor.execute(query("read_current"), {"corpus": corpus}).fetchone()


def lock_generation(connection: Connection, name: str) -> GenerationRow | None:
    """Lock a generation until the transaction ends. Postgres releases the lock of a process that died or hangs."""
    with connection.cursor(row_factory=row_of(GenerationRow)) as cursor:
        return cursor.execute(query("lock_generation"), {"name": name}).fetchone()


@contextmanager
def created_once(corpus: str, table_uri: str) -> Generator[None]:
    """Translate the errors of a transaction that calls `insert_generation`; a corpus that already exists is no error.

    Raises:
        ConfigurationError: The name is malformed.
        ConflictError: Another process created a generation in state `building` at the same time.
        TableInUseError: The table belongs to another corpus.
    """
    try:
        yield
    except UniqueViolation as error:
        if error.diag.constraint_name == "generation_building":
            raise ConflictError(f"Another migration of corpus {corpus!r} began at the same time") from error
        if error.diag.constraint_name not in ("generation_pkey", "generation_current"):
            raise TableInUseError(f"The LanceDB table at {table_uri} belongs to another corpus") from error
    except CheckViolation as error:
        raise ConfigurationError(
            f"The corpus name {corpus!r} must be lower-case letters, digits and underscores, beginning with a letter",
            "Choose another name. Nothing was created.",
        ) from error


def insert_generation(connection: Connection, generation: GenerationRow) -> None:
    """Add a generation. Its name and its table are unique; `created_once` translates the error if they are not."""
    connection.execute(
        query("insert_generation"),
        {
            "name": generation.name,
            "corpus": generation.corpus,
            "state": generation.state,
            "table_uri": generation.table_uri,
            "source": generation.source,
            "partition_by": generation.partition_by,
            "embedding": generation.embedding,
            "head_version": generation.head_version,
            "head_saga": generation.head_saga,
        },
    )


@dataclass(frozen=True, slots=True)
class Access:
    """Who may find the documents of a corpus."""

    column: str | None
    """The column with the principals of a document. None: everybody finds everything."""
    required: bool
    """Whether a search must name principals."""


UNRESTRICTED = Access(None, required=False)


def read_access(connection: Connection, corpus: str) -> Access:
    """Return the access that the catalog records for a corpus."""
    row = connection.execute(query("read_access"), {"corpus": corpus}).fetchone()
    return Access(row["access"], required=row["require_principals"]) if row else UNRESTRICTED


def set_access(connection: Connection, corpus: str, access: Access) -> None:
    """Record who may find the documents of a corpus, from the next search on."""
    connection.execute(
        query("set_access"), {"corpus": corpus, "access": access.column, "require_principals": access.required}
    )


def read_declaration(connection: Connection, corpus: str, *, lock: bool = False) -> dict[str, Any] | None:
    """Return the declaration of columns that is in force, None if none was recorded.

    Args:
        connection: The caller's transaction.
        corpus: Name of the corpus.
        lock: Lock it until the transaction ends.
    """
    statement = query("lock_declaration") if lock else query("read_declaration")
    row = connection.execute(statement, {"corpus": corpus}).fetchone()
    return row["columns"] if row else None


def set_declaration(connection: Connection, corpus: str, declaration: dict[str, Any]) -> None:
    """Put a declaration of columns in force."""
    connection.execute(query("set_declaration"), {"corpus": corpus, "columns": Jsonb(declaration)})


def move_head(connection: Connection, name: str, *, version: int, saga: UUID, manifest: str | None) -> None:
    """Set head to another version, whose staged manifest readers do not see before COMMIT."""
    connection.execute(query("move_head"), {"name": name, "version": version, "saga": saga, "manifest": manifest})


def read_generations(connection: Connection, corpus: str) -> list[Generation]:
    """Return all generations of a corpus, oldest first, including dropped ones."""
    with connection.cursor(row_factory=row_of(Generation)) as cursor:
        return cursor.execute(query("generations"), {"corpus": corpus}).fetchall()


def generation_summaries(connection: Connection) -> list[GenerationSummary]:
    """Return the generations of all corpora, except dropped ones, ordered by corpus and age."""
    with connection.cursor(row_factory=row_of(GenerationSummary)) as cursor:
        return cursor.execute(query("generation_summaries")).fetchall()


def living_generations(connection: Connection, corpus: str) -> list[GenerationRow]:
    """Return the generations of a corpus that were not dropped."""
    with connection.cursor(row_factory=row_of(GenerationRow)) as cursor:
        return cursor.execute(query("living_generations"), {"corpus": corpus}).fetchall()


def next_name(connection: Connection, corpus: str) -> str:
    """Return the name of a corpus' next generation. Names, and therefore table folders, are never used twice."""
    row = connection.execute(query("count_generations"), {"corpus": corpus}).fetchone()
    count = int(row["found"]) if row else 0
    return f"{corpus}-{count + 1}" if count else corpus


def is_bound(connection: Connection, name: str) -> bool:
    """Whether the binding is fixed: a publication, a batch job or a second generation exists."""
    row = connection.execute(query("is_bound"), {"name": name}).fetchone()
    return row is not None and row["found"]


def move_ended_sagas(connection: Connection, old: str, new: str) -> None:
    """Move ended sagas, with the vectors that they embedded and did not publish, to another generation."""
    connection.execute(query("move_ended_sagas"), {"old": old, "new": new})


def lock_generations(connection: Connection, names: Sequence[str]) -> dict[str, GenerationRow]:
    """Lock some generations until the transaction ends, so that no publication is in progress in any of them."""
    connection.execute(query("limit_waiting"))
    with connection.cursor(row_factory=row_of(GenerationRow)) as cursor:
        return {row.name: row for row in cursor.execute(query("lock_generations"), {"names": list(names)})}


def set_state(connection: Connection, name: str, state: GenerationState) -> None:
    """Set the state of a generation."""
    connection.execute(query("set_state"), {"name": name, "state": state})


def generation_differences(connection: Connection, old: str, new: str) -> list[GenerationDifference]:
    """Return the documents that differ between the heads of two generations, by key."""
    rows = connection.execute(query("generation_differences"), {"old": old, "new": new})
    return [GenerationDifference(**row) for row in rows]


def reembedding_progress(connection: Connection, old: str, new: str) -> dict[str, int]:
    """Count `documents_to_hold`, the documents at head of the old generation, and `documents`, those in both."""
    return connection.execute(query("reembedding_progress"), {"old": old, "new": new}).fetchone() or {}


def forget_generation(connection: Connection, name: str) -> None:
    """Delete the catalog's rows of a generation, and the staged files and embedded batches of its sagas."""
    connection.execute(query("forget_generation"), {"generation": name})


def forget_some_documents(connection: Connection, name: str, limit: int) -> int:
    """Delete at most ``limit`` documents of a generation with their chunks; return how many were deleted."""
    return connection.execute(query("forget_some_documents"), {"generation": name, "limit": limit}).rowcount


def rename_recipe(connection: Connection, name: str, old: Recipe, new: Recipe) -> None:
    """Replace an old recipe by an equivalent new one in all rows of a generation. The caller holds its lock."""
    suffixes = ["", *dict(old.parsers)]
    values = {
        "generation": name,
        "old": [old.for_suffix(suffix).fingerprint for suffix in suffixes],
        "new": [new.for_suffix(suffix).fingerprint for suffix in suffixes],
        "old_embedding": old.embedding,
        "new_embedding": new.embedding,
    }
    connection.execute(query("rename_recipe"), values)


def mark_unreported(connection: Connection, name: str) -> None:
    """Mark all publications of a generation as unreported, so that Dagster receives them again."""
    connection.execute(query("mark_unreported"), {"generation": name})
