"""Corpora and their generations: settings, state and head.

Every call works in its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.errors import CheckViolation, UniqueViolation
from psycopg.rows import class_row

from ingest_pipeline.errors import ConfigurationError, ConflictError, TableInUseError
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Recipe

GenerationState = Literal["building", "current", "retired", "dropped"]


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation of a corpus and its head."""

    name: str
    """Of the generation, and of its LanceDB table."""
    corpus: str
    """Name of the corpus."""
    state: GenerationState
    table_uri: str
    source: str | None
    partition_by: str | None
    embedding: str | None
    head_version: int
    head_saga: UUID


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
    """A document that two read_generations hold differently."""

    key: str
    partition: str
    old_saga: UUID | None
    """None: the old generation does not hold it."""
    new_etag: str | None
    """None: the new one does not hold it."""


def read_generation(connection: Connection, name: str) -> GenerationRow | None:
    """The corpus, None if there is none of that name."""
    with connection.cursor(row_factory=class_row(GenerationRow)) as cursor:
        return cursor.execute(query("read_generation"), {"name": name}).fetchone()


def read_current(connection: Connection, corpus: str) -> GenerationRow | None:
    """The generation of a corpus that readers see, None if there is no such corpus."""
    with connection.cursor(row_factory=class_row(GenerationRow)) as cursor:
        return cursor.execute(query("read_current"), {"corpus": corpus}).fetchone()


def lock_generation(connection: Connection, name: str) -> GenerationRow | None:
    """The corpus, locked until the transaction ends. Postgres frees the lock of a holder that died or sleeps."""
    with connection.cursor(row_factory=class_row(GenerationRow)) as cursor:
        return cursor.execute(query("lock_generation"), {"name": name}).fetchone()


@contextmanager
def created_once(corpus: str, table_uri: str) -> Generator[None]:
    """Translate the errors of a transaction that calls `insert_generation`; a corpus that exists by then is no error.

    Raises:
        ConfigurationError: The name is malformed.
        ConflictError: Another process began to fill a second generation at the same time.
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
    """Add a corpus. Its name and its table are unique; `created_once` translates the error if they are not."""
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


def move_head(connection: Connection, name: str, *, version: int, saga: UUID) -> None:
    """Name another version as the published one."""
    connection.execute(query("move_head"), {"name": name, "version": version, "saga": saga})


def read_generations(connection: Connection, corpus: str) -> list[Generation]:
    """Of a corpus, oldest first, dropped ones included."""
    return [Generation(**row) for row in connection.execute(query("generations"), {"corpus": corpus})]


def generation_summaries(connection: Connection) -> list[GenerationSummary]:
    """All read_generations of all corpora that were not dropped, by corpus, the oldest first."""
    return [GenerationSummary(**row) for row in connection.execute(query("generation_summaries"))]


def living_generations(connection: Connection, corpus: str) -> list[GenerationRow]:
    """Generations of a corpus that were not dropped."""
    return [GenerationRow(**row) for row in connection.execute(query("living_generations"), {"corpus": corpus})]


def next_name(connection: Connection, corpus: str) -> str:
    """The name of a corpus' next generation. No name is used twice, so no table's folder is."""
    row = connection.execute(query("count_generations"), {"corpus": corpus}).fetchone()
    count = int(row["found"]) if row else 0
    return f"{corpus}-{count + 1}" if count else corpus


def is_bound(connection: Connection, name: str) -> bool:
    """Whether the current generation must keep its settings: something was published or ordered, or it is migrated."""
    row = connection.execute(query("is_bound"), {"name": name}).fetchone()
    return row is not None and row["found"]


def move_ended_sagas(connection: Connection, old: str, new: str) -> None:
    """Let another generation have what ended sagas bought without publishing it."""
    connection.execute(query("move_ended_sagas"), {"old": old, "new": new})


def lock_generations(connection: Connection, names: Sequence[str]) -> dict[str, GenerationRow]:
    """Some read_generations by name, locked until the transaction ends: no publication is half way in any of them."""
    connection.execute(query("limit_waiting"))
    rows = connection.execute(query("lock_generations"), {"names": list(names)})
    return {row["name"]: GenerationRow(**row) for row in rows}


def set_state(connection: Connection, name: str, state: GenerationState) -> None:
    """Move a generation to another state."""
    connection.execute(query("set_state"), {"name": name, "state": state})


def generation_differences(connection: Connection, old: str, new: str) -> list[GenerationDifference]:
    """Documents that two read_generations hold differently at their heads, by key."""
    rows = connection.execute(query("generation_differences"), {"old": old, "new": new})
    return [GenerationDifference(**row) for row in rows]


def reembedding_progress(connection: Connection, old: str, new: str) -> dict[str, int]:
    """Of the ``documents_to_hold`` that readers see in the old generation, how many ``documents`` the new one holds."""
    return connection.execute(query("reembedding_progress"), {"old": old, "new": new}).fetchone() or {}


def forget_generation(connection: Connection, name: str) -> None:
    """Delete the catalog's rows of a generation, and what its sagas staged and bought."""
    connection.execute(query("forget_generation"), {"generation": name})


def forget_some_documents(connection: Connection, name: str, limit: int) -> int:
    """Delete some documents of a generation with their chunks; returns how many, at most ``limit``."""
    return connection.execute(query("forget_some_documents"), {"generation": name, "limit": limit}).rowcount


def rename_recipe(connection: Connection, name: str, old: Recipe, new: Recipe) -> None:
    """Record under a new recipe what was made under an old one that means the same. The caller has the lock."""
    values = {
        "generation": name,
        "old": old.fingerprint,
        "new": new.fingerprint,
        "old_embedding": old.embedding,
        "new_embedding": new.embedding,
    }
    connection.execute(query("rename_recipe"), values)


def mark_unreported(connection: Connection, name: str) -> None:
    """Let everything that a generation published be reported to Dagster again."""
    connection.execute(query("mark_unreported"), {"generation": name})
