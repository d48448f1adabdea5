"""Make the latest version equal head again. Any process that has the lock and finds a difference does this.

A version above head was written by something else, by another database, or by this one in a transaction that Postgres
lost. To undo that version, head's content is restored as a new version, and head moves to it in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.head_manifest import install_head, install_published
from ingest_pipeline.corpus.saga_timeouts import ATTEMPTS
from ingest_pipeline.corpus.table_identity import mark_for, origins, other_write, without_head
from ingest_pipeline.errors import (
    ConfigurationError,
    ForeignWriteError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.versions.manifests import CommitRefusedError
from ingest_pipeline.lance.versions.version_mark import VersionMark
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection, DatabaseConflictError
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind, SagaState
from ingest_pipeline.telemetry.metrics import SAGAS


def lock(connection: Connection, corpus: Corpus, *, over_foreign: bool = False) -> GenerationRow:
    """Take the row lock of the generation, read its head for writing, and install head's manifest if its writer died.

    Args:
        connection: The connection of the caller's transaction.
        corpus: The corpus.
        over_foreign: Replace a version that something else made with the number of head, as the user decided.
    """
    with boundary(Boundary.LOCK_TAKEN):
        row = corpora.lock_generation(connection, corpus.generation)
    if row is None:
        raise ConfigurationError(f"Corpus {corpus.name!r} is gone from the database", "Ingest it again to create it.")
    corpus.check_table(row)
    install_head(corpus.table, row, replace=over_foreign)
    return row


def reconcile(corpus: Corpus, *, over_foreign: bool = False) -> list[UUID]:
    """Make latest equal head.

    Args:
        corpus: The corpus to reconcile.
        over_foreign: Also undo versions that something else or another database wrote, as the user decided.

    Returns:
        The sagas whose versions were undone; they have ended.

    Raises:
        ForeignWriteError: Something else wrote a version above head.
        OtherDatabaseError: Another database wrote one, or the table is newer than this database.
        CommitRefusedError: Something else wrote a version during every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _reconcile_once(corpus, over_foreign=over_foreign)
        except (CommitRefusedError, DatabaseConflictError):
            continue
    return _reconcile_once(corpus, over_foreign=over_foreign)


def _reconcile_once(corpus: Corpus, *, over_foreign: bool) -> list[UUID]:
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus, over_foreign=over_foreign)
        above = versions_above(corpus, head)
        if not above:
            return []
        if over_foreign:
            _record_unknown(connection, corpus, head, above)
        else:
            check_may_undo(connection, corpus, head, above)
        restored = restore_as_head(connection, corpus, head, content=head.head_version)
        undone = [mark.saga for mark in above.values() if mark is not None]
        with boundary(Boundary.SETTLED):
            ended = sagas.mark_compensated(
                connection, undone, f"head {head.head_version} was restored as {restored.head_version}"
            )
    install_published(corpus.table, restored)
    count_settled(ended, SagaState.COMPENSATED)
    return ended


def count_settled(ended: Sequence[UUID], state: SagaState) -> None:
    """Count sagas of dead writers that this process ended, in the metrics. Their kind is not known."""
    SAGAS.add(len(ended), kind="settled", state=state)


def _record_unknown(
    connection: Connection, corpus: Corpus, head: GenerationRow, above: Mapping[int, VersionMark | None]
) -> None:
    """Record the sagas whose versions the user wants undone, so that the sweep may remove their files."""
    makers = {mark.saga: version for version, mark in above.items() if mark is not None}
    error = f"restored to head {head.head_version} by `recover --restore`"
    sagas.record_unknown(connection, corpus.generation, makers, SagaState.COMPENSATED, error)


def versions_above(corpus: Corpus, head: GenerationRow) -> dict[int, VersionMark | None]:
    """The unpublished versions in ascending order, with their marks. None: something else wrote the version.

    Raises:
        OtherDatabaseError: The table lost the version that head names.
    """
    latest = corpus.table.latest_version()
    if latest < head.head_version:
        raise without_head(head, latest)
    return {version: corpus.table.mark_of(version) for version in range(head.head_version + 1, latest + 1)}


def check_may_undo(
    connection: Connection, corpus: Corpus, head: GenerationRow, marks: Mapping[int, VersionMark | None]
) -> None:
    """Refuse to undo versions above head that were not made by sagas of this database.

    Raises:
        OtherDatabaseError: Another database published one, or this one published it in a lost history.
        ForeignWriteError: Something else wrote one.
    """
    found = origins(connection, marks)
    for version, origin in found.items():
        if origin == "other":
            raise other_write(head, version, marks[version])
    foreign = [version for version, origin in found.items() if origin == "foreign"]
    if foreign:
        raise foreign_write(corpus, foreign[-1], head)


def restore_as_head(connection: Connection, corpus: Corpus, head: GenerationRow, *, content: int) -> GenerationRow:
    """Publish the content of a version again, above the latest one, by a saga of its own. The caller has the lock.

    Returns:
        The generation with its new head, which the caller installs after COMMIT by `install_published`.

    Raises:
        CommitRefusedError: Something else wrote a version meanwhile.
    """
    latest = corpus.table.latest_version()
    saga = sagas.begin(connection, generation=corpus.generation, kind=SagaKind.RESTORE, base_version=head.head_version)
    sagas.mark_prepared(connection, saga)
    made = corpus.table.stage_restore(content, mark_for(connection, head, saga))
    check_version(corpus, made.number, latest + 1)
    sagas.mark_published(connection, saga, base_version=head.head_version, version=made.number)
    with boundary(Boundary.HEAD_MOVED):
        corpora.move_head(connection, corpus.generation, version=made.number, saga=saga, manifest=made.manifest)
    return replace(head, head_version=made.number, head_saga=saga, staged_manifest=made.manifest)


def check_version(corpus: Corpus, made: int, expected: int) -> None:
    """Refuse a staged version if something else made one of its number meanwhile.

    Raises:
        CommitRefusedError: Nothing was published.
    """
    if made != expected or corpus.table.latest_version() >= expected:
        raise CommitRefusedError(f"Version {expected} of {corpus.table.uri} was taken by another writer")


def foreign_write(corpus: Corpus, version: int, head: GenerationRow) -> ForeignWriteError:
    """The error that asks the user to decide about a foreign version."""
    return ForeignWriteError(
        f"Version {version} of the table of corpus {corpus.name!r} was written by something else, above head "
        f"{head.head_version}",
        "Nothing was published. Keep its content with `ingest-pipeline recover --adopt`, or undo it with "
        "`ingest-pipeline recover --restore`.",
    )
