"""Failed documents: the reason, the number of attempts, and whether another attempt is due.

An unreadable document is not attempted again until its bytes or the recipe change. A document that fails for another
reason is attempted three times. Every function runs in its caller's transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ingest_pipeline.errors import DocumentError, IngestError, UnreadableError
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.texts import sanitize_text

# A document that failed this often with the same bytes and recipe is in quarantine: ingestion skips it until one of
# them changes or the user runs `retry`.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """The failed attempts at a document with the same bytes and recipe, and the last error."""

    key: str
    partition: str
    etag: str
    recipe: str
    attempts: int
    reason: str
    """A short code by which failures are counted."""
    unreadable: bool
    """No text can be extracted from the file."""
    final: bool
    """Another attempt at the same bytes would fail in the same way."""
    error: str
    since: datetime
    """Time of the first failure since the document was last published."""
    failed_at: datetime
    published_version: int | None
    """Version that published the earlier file that readers at head see. None: they do not see the document."""

    @property
    def is_final(self) -> bool:
        """Whether the next attempt requires a change of the bytes or the recipe, or a `retry`."""
        return self.final or self.attempts >= MAX_ATTEMPTS

    @property
    def is_quarantined(self) -> bool:
        """Whether the document is in quarantine: the file is readable, and no further attempt is due."""
        return not self.unreadable and self.is_final

    @property
    def stale_since(self) -> datetime | None:
        """Time since which readers see an earlier file than the source has. None: they do not see the document."""
        return None if self.published_version is None else self.since


def record_failure(
    connection: Connection, generation: str, *, key: str, partition: str, etag: str, recipe: str, error: IngestError
) -> None:
    """Record a failed attempt at a document."""
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
    """Return the documents whose last attempt failed, by key."""
    with connection.cursor(row_factory=class_row(Failure)) as cursor:
        return cursor.execute(query("read_failures"), {"generation": generation}).fetchall()


def clear_failures(connection: Connection, generation: str, keys: Sequence[str]) -> None:
    """Delete the failures of documents that were published, were removed or should be attempted again."""
    connection.execute(query("clear_failures"), {"generation": generation, "keys": list(keys)})


def forget_failures(connection: Connection, generation: str) -> None:
    """Delete all failures of a generation, because they belong to documents of another source."""
    connection.execute(query("forget_failures"), {"generation": generation})


def count_reasons(failures: Iterable[Failure]) -> Counter[str]:
    """Count the failed documents by reason."""
    return Counter(failure.reason for failure in failures)
