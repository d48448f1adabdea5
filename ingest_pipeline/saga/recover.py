"""Recovery from dead writers: end their unfinished sagas, and undo their versions above head."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal
from uuid import UUID

import pyarrow as pa

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.head_manifest import install_published
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.corpus.saga_timeouts import SILENCE_SECONDS
from ingest_pipeline.corpus.table_identity import check_holds_head, examine
from ingest_pipeline.errors import ConflictError, ForeignWriteError
from ingest_pipeline.lance.changes import OWNER_PROPERTY
from ingest_pipeline.postgres.catalog import prepared_documents
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaState
from ingest_pipeline.saga.reconcile import (
    check_may_undo,
    count_settled,
    lock,
    reconcile,
    restore_as_head,
    versions_above,
)
from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.telemetry.spans import span

# After this many attempts, sagas whose rows are still locked are deferred to the next recovery.
_LOCK_ATTEMPTS = 20
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """The sagas that a recovery ended."""

    corpus: str
    head_before: int
    head_after: int
    compensated: list[UUID]
    """Sagas whose Lance version was undone."""
    abandoned: list[UUID]
    """Sagas whose writer is gone and which had committed nothing."""


def recover(
    corpus: Corpus,
    *,
    silence: float = SILENCE_SECONDS,
    dead_runs: Sequence[str] = (),
    foreign: Literal["adopt", "restore"] | None = None,
) -> RecoveryReport:
    """Make latest equal head, and end the sagas whose writers are gone. Safe to run beside concurrent writers.

    Args:
        corpus: The corpus to recover.
        silence: Seconds without a heartbeat after which a writer is taken for dead. Too short a time is wasteful but
            safe: a living writer is fenced and plans again.
        dead_runs: Dagster runs that are known to have ended. Their sagas are settled at once.
        foreign: What to do with a foreign version above head: undo it, or keep its content. Keeping is refused unless
            the version has the columns and exactly the rows of head.

    Raises:
        ForeignWriteError: There is a foreign version without a decision, or keeping it would break the catalog.
        ConflictError: Something was published while the foreign version was examined; nothing was adopted.
        UnavailableError: One of the stores does not answer.
    """
    with scope(corpus=corpus.name, generation=corpus.generation), span("recover"):
        return _recover(corpus, silence, dead_runs, foreign)


def _recover(
    corpus: Corpus, silence: float, dead_runs: Sequence[str], foreign: Literal["adopt", "restore"] | None
) -> RecoveryReport:
    before = corpus.row().head_version
    corpus.table.remove_empty_versions(before)
    if foreign != "restore":
        check_writable(corpus)
    if foreign == "adopt":
        _adopt(corpus)
    compensated = reconcile(corpus, over_foreign=foreign == "restore")
    abandoned = _abandon(corpus, silence, dead_runs)
    return RecoveryReport(corpus.generation, before, corpus.head().head_version, compensated, abandoned)


def _abandon(corpus: Corpus, silence: float, dead_runs: Sequence[str]) -> list[UUID]:
    """End the sagas of dead writers. Retries while their rows are locked by the backend of a client that is gone."""
    abandoned: list[UUID] = []
    for _ in range(_LOCK_ATTEMPTS):
        with corpus.database.transaction() as connection:
            lock(connection, corpus)
            ended, busy = sagas.abandon_dead(connection, corpus.generation, limit=silence, dead_runs=dead_runs)
            for saga in ended:
                prepared_documents.forget_documents(connection, saga)
        count_settled(ended, SagaState.ABANDONED)
        abandoned += ended
        if not busy:
            break
        time.sleep(_PAUSE_SECONDS)
    return abandoned


def _adopt(corpus: Corpus) -> None:
    """Publish the last foreign version if it has exactly the rows of head, as after a compaction.

    Later versions of this database are not kept: they were undone, or reconciling undoes them.
    """
    # Versions never change, so two of them can be read without a lock.
    head = corpus.head()
    foreign = _last_foreign(corpus, head)
    if foreign is None:
        return
    _check_same_columns(corpus, head, foreign)
    _check_same_rows(corpus, head, foreign)
    corpus.table.flush()
    with corpus.database.transaction() as connection:
        _check_unchanged(corpus, lock(connection, corpus), head, foreign)
        adopted = restore_as_head(connection, corpus, head, content=foreign)
    install_published(corpus.table, adopted)


def _check_unchanged(corpus: Corpus, now: GenerationRow, head: GenerationRow, foreign: int) -> None:
    if now != head or _last_foreign(corpus, head) != foreign:
        raise ConflictError(f"The table of corpus {corpus.name!r} was written to while version {foreign} was examined")


def take_over(corpus: Corpus) -> int | None:
    """Let this database continue with a table into which another one published, or that was moved or copied.

    This database publishes head again. That fences the other database: its next writer finds an unknown version above
    its head, and fails with an error that says so.

    Returns:
        The published version, or None if the table belongs to this database already.

    Raises:
        OtherDatabaseError: The table is newer or older than this database. The user must decide what to keep.
        ForeignWriteError: Something else wrote a version above head.
        UnavailableError: One of the stores does not answer.
    """
    head = corpus.head()
    with corpus.database.transaction() as connection:
        finding = examine(connection, head, corpus.table)
        if finding.is_ours and finding.holds_head and finding.written_at == head.table_uri and finding.newer is None:
            return None
    corpus.table.flush()  # it may have been copied a moment ago
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        check_holds_head(connection, head, corpus.table)
        check_may_undo(connection, corpus, head, versions_above(corpus, head))
        ours = restore_as_head(connection, corpus, head, content=head.head_version)
    install_published(corpus.table, ours)
    return ours.head_version


def _last_foreign(corpus: Corpus, head: GenerationRow) -> int | None:
    return max((version for version, mark in versions_above(corpus, head).items() if mark is None), default=None)


def _check_same_columns(corpus: Corpus, head: GenerationRow, version: int) -> None:
    """Refuse a version whose columns differ from head, because Lance could append no data files to it.

    Lance requires all columns of the table in a data file, nullable ones too. Rows of documents have the columns of
    this package. Only a table whose rows a user manages can have more columns.
    """
    ours, theirs = (corpus.table.at(number).schema for number in (head.head_version, version))
    differences = list(column_differences(ours, theirs, may_add=head.source is None))
    if (theirs.metadata or {}).get(OWNER_PROPERTY) != (ours.metadata or {}).get(OWNER_PROPERTY):
        differences.append("it lacks the mark of the corpus that owns the table")
    if differences:
        raise ForeignWriteError(
            f"Version {version} of the table of corpus {corpus.name!r} has other columns than head "
            f"{head.head_version}: {'; '.join(differences)}. No document could be published after its adoption",
            "Nothing was changed. Undo that version with `ingest-pipeline recover --restore`, and keep columns of your "
            "own in another table, which refers to chunks by their ids.",
        )


def column_differences(ours: pa.Schema, theirs: pa.Schema, *, may_add: bool) -> Iterator[str]:
    """The differences in columns that prevent rows from being appended to a table, as short phrases.

    Args:
        ours: The columns of the rows.
        theirs: The columns of the table.
        may_add: Whether the table may have additional columns.
    """
    for field in ours:
        position = theirs.get_field_index(field.name)
        if position < 0:
            yield f"column {field.name!r} is missing"
        elif theirs.field(position).type != field.type:
            yield f"column {field.name!r} is {theirs.field(position).type} instead of {field.type}"
        elif theirs.field(position).nullable != field.nullable:
            yield f"column {field.name!r} {'may be' if theirs.field(position).nullable else 'may not be'} null"
    if not may_add:
        yield from (f"column {field.name!r} was added" for field in theirs if field.name not in ours.names)


def _check_same_rows(corpus: Corpus, head: GenerationRow, version: int) -> None:
    columns = corpus.table.columns(head.head_version)
    before, after = (_row_counts(corpus, number, columns) for number in (head.head_version, version))
    if before != after:
        raise ForeignWriteError(
            f"Version {version} of the table of corpus {corpus.name!r} has other rows than head {head.head_version}: "
            f"{(before - after).total()} are missing or changed, and {(after - before).total()} are new or changed. "
            "The catalog would not describe them",
            "Nothing was changed. Undo that version with `ingest-pipeline recover --restore`, and write the rows in a "
            "transaction.",
        )


def _row_counts(corpus: Corpus, version: int, columns: list[str]) -> Counter[bytes]:
    """Count how often each row occurs, by a digest of its values."""
    return Counter(
        blake2b(repr(row).encode(), digest_size=16).digest()
        for batch in corpus.table.batches(version, columns)
        for row in batch.to_pylist()
    )
