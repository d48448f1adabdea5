"""The catalog's rows about generations. Every call works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ingest_pipeline.postgres.binding import Binding
from ingest_pipeline.postgres.catalog import GenerationRow, GenerationState
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.types import Recipe


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
class Difference:
    """A document that two generations hold differently."""

    key: str
    partition: str
    old_saga: UUID | None
    """None: the old generation does not hold it."""
    new_etag: str | None
    """None: the new one does not hold it."""


def generations(connection: Connection, corpus: str) -> list[Generation]:
    """Of a corpus, oldest first, dropped ones included."""
    return [Generation(**row) for row in connection.execute(query("generations"), {"corpus": corpus})]


def summaries(connection: Connection) -> list[GenerationSummary]:
    """All generations of all corpora that were not dropped, by corpus, the oldest first."""
    return [GenerationSummary(**row) for row in connection.execute(query("generation_summaries"))]


def living(connection: Connection, corpus: str) -> list[GenerationRow]:
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


def rebind(connection: Connection, name: str, binding: Binding) -> None:
    """Record other settings of a generation. The caller has its lock."""
    values = {
        "name": name,
        "table_uri": binding.table_uri,
        "source": binding.source,
        "partition_by": binding.partition_by,
        "embedding": binding.embedding,
    }
    connection.execute(query("rebind"), values)


def move_ended_sagas(connection: Connection, old: str, new: str) -> None:
    """Let another generation have what ended sagas bought without publishing it."""
    connection.execute(query("move_ended_sagas"), {"old": old, "new": new})


def lock_generations(connection: Connection, names: Sequence[str]) -> dict[str, GenerationRow]:
    """Some generations by name, locked until the transaction ends: no publication is half way in any of them."""
    connection.execute(query("limit_waiting"))
    rows = connection.execute(query("lock_generations"), {"names": list(names)})
    return {row["name"]: GenerationRow(**row) for row in rows}


def set_state(connection: Connection, name: str, state: GenerationState) -> None:
    """Move a generation to another state."""
    connection.execute(query("set_state"), {"name": name, "state": state})


def differences(connection: Connection, old: str, new: str) -> list[Difference]:
    """Documents that two generations hold differently at their heads, by key."""
    rows = connection.execute(query("generation_differences"), {"old": old, "new": new})
    return [Difference(**row) for row in rows]


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
