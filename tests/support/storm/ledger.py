"""What the ledger says during a storm: which publications are blocked, which documents were erased, and since when."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.types import text_hash

# A transaction that began before a run may have ended a blocked publication, or an erasure, after the run began.
_SLACK_SECONDS = 15.0
# Of an unfinished request, the embedding API may have computed vectors that an erasure then deletes.
_REQUEST_SECONDS = 5.0
_CORPUS = "docs"
_RECORD_BLOCKS = """
CREATE SCHEMA storm;
CREATE TABLE storm.blocked (saga uuid NOT NULL, key text NOT NULL);
CREATE FUNCTION storm.note_blocked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storm.blocked SELECT d.saga, d.key FROM ingest_pipeline.document d WHERE d.saga = NEW.saga;
    RETURN NULL;
END $$;
CREATE TRIGGER note_blocked AFTER INSERT ON ingest_pipeline.gate_judgement FOR EACH ROW
    WHEN (NOT NEW.passed AND NEW.saga IS NOT NULL) EXECUTE FUNCTION storm.note_blocked();
"""


def record_blocks(database_url: str) -> None:
    """Let the database record the documents of each blocked publication, because the ledger forgets them."""
    with psycopg.connect(database_url) as connection:
        connection.execute(_RECORD_BLOCKS)


def blocked_since(connection: Connection, moment: datetime) -> set[str]:
    """The documents of which a publication was blocked at some time since a moment."""
    rows = connection.execute(
        "SELECT DISTINCT b.key FROM storm.blocked b JOIN ingest_pipeline.saga s ON s.id = b.saga "
        "WHERE s.ended_at IS NULL OR s.ended_at >= %s - make_interval(secs => %s)",
        (moment, _SLACK_SECONDS),
    )
    return {row["key"] for row in rows}


def states_of(connection: Connection, sagas: Collection[str]) -> dict[str, str]:
    """The states of some sagas."""
    rows = connection.execute(
        "SELECT id::text, state::text FROM ingest_pipeline.saga WHERE id = ANY(%s::uuid[])", (sorted(sagas),)
    )
    return {row["id"]: row["state"] for row in rows}


@dataclass(frozen=True, slots=True)
class ErasedKeys:
    """What the ledger says about some keys."""

    finished: frozenset[str]
    """Erased before a moment, and not allowed again since."""
    ever: frozenset[str]
    """Named by any erasure at any time, one that is not finished or was allowed again included."""


def erased_keys(connection: Connection, keys: Iterable[str], before: datetime) -> ErasedKeys:
    """What the ledger says about some keys.

    Args:
        connection: Connection of the caller's transaction.
        keys: The keys.
        before: The moment before which an erasure has to have finished.
    """
    rows = connection.execute(
        "SELECT e.salt, d.key_hash, d.allowed_at IS NULL AND e.erased_at < %s AS finished "
        "FROM ingest_pipeline.erasure e JOIN ingest_pipeline.erased_document d ON d.erasure = e.id WHERE e.corpus = %s",
        (before, _CORPUS),
    ).fetchall()
    finished: set[str] = set()
    ever: set[str] = set()
    for key in keys:
        found = [row for row in rows if hashlib.sha256(row["salt"] + key.encode()).digest() == bytes(row["key_hash"])]
        if found:
            ever.add(key)
        if any(row["finished"] for row in found):
            finished.add(key)
    return ErasedKeys(frozenset(finished), frozenset(ever))


def erased_since(connection: Connection, keys: Collection[str], moment: datetime) -> set[str]:
    """The keys that runs did not ingest at some time since a moment, because they were erased."""
    rows = connection.execute(
        "SELECT e.salt, d.key_hash FROM ingest_pipeline.erasure e "
        "JOIN ingest_pipeline.erased_document d ON d.erasure = e.id "
        "WHERE e.corpus = %s AND (d.allowed_at IS NULL OR d.allowed_at >= %s - make_interval(secs => %s))",
        (_CORPUS, moment, _SLACK_SECONDS),
    ).fetchall()
    hashes = {(row["salt"], bytes(row["key_hash"])) for row in rows}
    salts = {salt for salt, _ in hashes}
    return {key for key in keys if any((s, hashlib.sha256(s + key.encode()).digest()) in hashes for s in salts)}


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The vectors that erasures deleted: all that were recorded and, by then, published in no document that is left."""

    spans: tuple[tuple[float, float], ...] = ()
    """When erasures ran, in seconds of the monotonic clock."""
    published: dict[UUID, float] = field(default_factory=dict[UUID, float])
    """When each text that the catalog still has was first published, by its hash."""

    @classmethod
    def read(cls, connection: Connection) -> Forgotten:
        """Read the times from the ledger."""
        offset = time.time() - time.monotonic()
        rows = connection.execute(
            "SELECT requested_at, coalesce(erased_at, now()) AS ended FROM ingest_pipeline.erasure"
        )
        spans = tuple((row["requested_at"].timestamp() - offset, row["ended"].timestamp() - offset) for row in rows)
        rows = connection.execute(
            "SELECT c.text_hash, min(s.ended_at) AS at FROM ingest_pipeline.chunk c "
            "JOIN ingest_pipeline.saga s ON s.id = c.saga WHERE s.state = 'published' GROUP BY c.text_hash"
        )
        return cls(spans, {row["text_hash"]: row["at"].timestamp() - offset for row in rows})

    def has(self, text: str, began: float, ended: float) -> bool:
        """Whether an erasure deleted the vector of a text between two moments."""
        published = self.published.get(text_hash(text), float("inf"))
        return any(
            first - _REQUEST_SECONDS <= ended
            and last + _REQUEST_SECONDS >= began
            and published > first - _REQUEST_SECONDS
            for first, last in self.spans
        )
