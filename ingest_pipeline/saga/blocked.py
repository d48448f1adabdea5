"""Blocked publications: sagas that are prepared and did not pass their gates.

    prepared ──block──> blocked ──release──> published
                           ├──drop──────────> failed
                           └──overtaken─────> failed     another publication has one of its documents

No reader sees a blocked publication. Its data files, chunk rows and vectors are kept, so that a release publishes
exactly what was judged and embeds nothing. It has no writer, so no heartbeat is missed and no recovery ends it. The
planner skips its documents while the source has what was prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.errors import ConfigurationError, ConflictError, UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Change, StagedFragment
from ingest_pipeline.postgres.catalog import documents, gates
from ingest_pipeline.postgres.catalog.gates import BlockedPublication
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.saga.documents import DocumentRows
from ingest_pipeline.saga.publish import publish
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.types import Finding

_DROPPED = "dropped by the user"
_LIST = "`ingest-pipeline gate status` lists the blocked publications."


def block_publication(corpus: Corpus, rows: DocumentRows, findings: Sequence[Finding]) -> None:
    """Keep a prepared publication that did not pass its gates.

    It takes the place of older blocked publications that have a document of it.

    Args:
        corpus: The corpus.
        rows: What the saga prepared.
        findings: Why it did not pass.

    Raises:
        ConflictError: Another saga published one of the documents meanwhile.
        FencedError: Another process took this writer for dead.
        GenerationRetiredError: Readers see another generation.
        UnavailableError: Postgres failed. The saga is blocked, or recovery ends it.
    """
    failed = "; ".join(str(finding) for finding in findings if not finding.passed)
    # Under the lock, so that no publication of these documents is in progress.
    with boundary(Boundary.BLOCKED), corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        corpus.check_generation(head)
        if conflicts := documents.conflicting_documents(connection, rows.saga):
            raise ConflictError(f"Another saga published {conflicts[0]!r} after this one planned it")
        gates.block(connection, rows.saga, f"did not pass its gates: {failed}")
        gates.overtake(connection, rows.saga)
        gates.record_judgement(
            connection,
            corpus.generation,
            rows.saga,
            head.head_version,
            findings,
            files=rows.files,
            columns=rows.schema.serialize().to_pybytes(),
        )


@dataclass(frozen=True, slots=True)
class _ReleasedRows:
    """Both sides of the publication of a blocked saga."""

    rows: DocumentRows

    def write(self, connection: Connection, base: int, version: int) -> Change:
        # In the same transaction as the publication: a process that dies before COMMIT leaves the saga blocked.
        gates.unblock(connection, self.rows.saga)
        gates.release(connection, self.rows.generation, self.rows.saga)
        return self.rows.write(connection, base, version)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        self.rows.record_fragments(connection, version, fragments)


def blocked_publications(corpus: Corpus) -> list[BlockedPublication]:
    """The blocked publications of a generation, oldest first."""
    with corpus.database.transaction() as connection:
        return gates.blocked_publications(connection, corpus.generation)


def release_publication(corpus: Corpus, saga: UUID) -> int:
    """Publish a blocked publication as it was judged. Nothing is read from the source and nothing is embedded.

    Returns:
        The published version.

    Raises:
        ConfigurationError: The saga is not blocked.
        ConflictError, FencedError: It was overtaken, dropped or released by another process.
        GenerationRetiredError: The columns of the table changed since it was prepared. Drop it, and ingest again.
        UnavailableError: Nothing was published, or, if the message says so, the saga is in doubt until it is settled.
    """
    check_writable(corpus)
    with corpus.database.transaction() as connection:
        prepared = gates.prepared_files(connection, saga) if saga in _blocked(connection, corpus) else None
        if prepared is None:
            raise _not_blocked(corpus, saga)
        counts, removed = gates.staged_fragments(connection, saga), gates.removed_keys(connection, saga)
    files, columns = prepared
    names = dict.fromkeys(name for one in files.values() for name in one)
    rows = DocumentRows(
        corpus.generation,
        saga,
        [StagedFragment(name, counts[name]) for name in names],
        files,
        removed,
        pa.ipc.read_schema(pa.BufferReader(columns)),
    )
    version = publish(corpus, saga, _ReleasedRows(rows))
    for name in rows.spooled:
        with suppress(UnavailableError):  # the next sweep removes it
            corpus.table.remove_file(name)
    return version


def drop_publication(corpus: Corpus, saga: UUID) -> None:
    """End a blocked publication. Recorded vectors are kept for a week, and the sweep removes its files.

    The next run plans its documents again.

    Raises:
        ConfigurationError: The saga is not blocked.
    """
    with boundary(Boundary.BLOCKED), corpus.database.transaction() as connection:
        is_own = saga in _blocked(connection, corpus)
        if not is_own or not gates.drop(connection, saga, _DROPPED):
            raise _not_blocked(corpus, saga)


def _blocked(connection: Connection, corpus: Corpus) -> set[UUID]:
    return gates.blocked_sagas(connection, corpus.generation)


def _not_blocked(corpus: Corpus, saga: UUID) -> ConfigurationError:
    return ConfigurationError(f"Corpus {corpus.name!r} has no blocked publication {saga}", _LIST)
