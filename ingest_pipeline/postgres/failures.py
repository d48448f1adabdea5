"""Documents whose last attempt failed: what was wrong, how often, and whether another attempt is due.

A document that cannot be read is given up at once, until its bytes or the recipe change; one that fails for another
reason after three attempts. Every call works in its caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ingest_pipeline.errors import DocumentError, IngestError, UnreadableError
from ingest_pipeline.postgres.database import Connection, sanitize_text
from ingest_pipeline.postgres.sql import query

# A document that failed so often with the same bytes and recipe is in quarantine: left alone until one of them changes,
# or a person says so.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """How often a document failed with the same bytes and recipe, and why."""

    key: str
    partition: str
    etag: str
    recipe: str
    attempts: int
    reason: str
    """A word or two, by which failures are counted."""
    unreadable: bool
    """No text can be got out of the file."""
    final: bool
    """No further attempt at the same bytes would end otherwise."""
    error: str
    since: datetime
    """When it failed for the first time since it was last published."""
    failed_at: datetime
    published_version: int | None
    """Of what readers at head see of the document, made from an earlier file. None: they see nothing of it."""

    @property
    def is_final(self) -> bool:
        """Whether only a change of the bytes or the recipe, or a `retry`, leads to another attempt."""
        return self.final or self.attempts >= MAX_ATTEMPTS

    @property
    def is_quarantined(self) -> bool:
        """Whether it was given up although the file can be read."""
        return not self.unreadable and self.is_final

    @property
    def stale_since(self) -> datetime | None:
        """Since when readers see an earlier file than the source holds. None: they see nothing of the document."""
        return None if self.published_version is None else self.since


def record_failure(
    connection: Connection, generation: str, *, key: str, partition: str, etag: str, recipe: str, error: IngestError
) -> None:
    """Count a failed attempt at a document."""
    values = {
        "generation": generation,
        "key": key,
        "partition": partition,
        "etag": etag,
        "recipe": recipe,
        "reason": error.reason if isinstance(error, DocumentError) else "changing",
        "unreadable": isinstance(error, UnreadableError),
        "final": isinstance(error, UnreadableError) and not error.may_pass,
        "error": sanitize_text(str(error)),
    }
    connection.execute(query("record_failure"), values)


def read_failures(connection: Connection, generation: str) -> list[Failure]:
    """Documents whose last attempt failed, by key."""
    with connection.cursor(row_factory=class_row(Failure)) as cursor:
        return cursor.execute(query("read_failures"), {"generation": generation}).fetchall()


def clear_failures(connection: Connection, generation: str, keys: Sequence[str]) -> None:
    """Forget the failures of documents that were published, are gone, or are to be tried again."""
    connection.execute(query("clear_failures"), {"generation": generation, "keys": list(keys)})


def forget_failures(connection: Connection, generation: str) -> None:
    """Forget all failures: they are of documents of another source."""
    connection.execute(query("forget_failures"), {"generation": generation})


def count_reasons(failures: Iterable[Failure]) -> Counter[str]:
    """How many documents failed for which reason."""
    return Counter(failure.reason for failure in failures)
