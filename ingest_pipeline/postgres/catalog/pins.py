"""Pins: the version of a corpus that a Dagster run reads, so that all inputs of the run agree and retention keeps it.

A pin keeps its version for a day after the run last loaded it. The row itself stays for a month, because a run that
is executed again from its failure reads the version of the first one. Every function runs in its caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query


@dataclass(frozen=True, slots=True)
class Pin:
    """A version of a corpus that readers were shown."""

    generation: str
    version: int

    def __str__(self) -> str:
        return f"{self.generation}@{self.version}"


def read_pin(connection: Connection, corpus: str, run_id: str) -> Pin | None:
    """Return the version that a run reads, and keep it for another day. None: the run has read nothing yet."""
    row = connection.execute(query("renew_pin"), {"corpus": corpus, "run_id": run_id}).fetchone()
    return None if row is None else Pin(row["generation"], row["version"])


def insert_pin(connection: Connection, corpus: str, run_id: str, pin: Pin) -> Pin:
    """Record the version that a run reads, unless another of its processes has done so.

    Args:
        connection: Connection of a transaction that holds the lock of the generation.
        corpus: Name of the corpus.
        run_id: The run.
        pin: The version.

    Returns:
        The version that the run reads.
    """
    connection.execute(query("forget_pins"))
    values = {"corpus": corpus, "run_id": run_id, "generation": pin.generation, "version": pin.version}
    row = connection.execute(query("insert_pin"), values).fetchone()
    assert row is not None  # noqa: S101  the statement returns the row that exists
    return Pin(row["generation"], row["version"])


def runs_behind(connection: Connection, corpus: str, pin: Pin) -> list[str]:
    """Return the runs that read an earlier version than this one during the last day, newest first, at most 100."""
    values = {"corpus": corpus, "generation": pin.generation, "version": pin.version}
    return [str(row["run_id"]) for row in connection.execute(query("runs_behind"), values)]
