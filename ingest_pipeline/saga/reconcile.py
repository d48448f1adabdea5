"""Make the latest version equal head again. Any process that has the lock and finds a difference does this.

A version above head belongs to a saga whose writer died, lost its COMMIT or resumed late. To undo that version, head's
content is restored as a new version, and head moves to it in the same transaction. Lance then refuses older commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.protocol import ATTEMPTS
from ingest_pipeline.corpus.table_identity import mark_for, origins, other_write, without_head
from ingest_pipeline.errors import (
    ConfigurationError,
    ForeignWriteError,
    OtherDatabaseError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.table import CommitRefusedError
from ingest_pipeline.lance.version_mark import VersionMark
from ingest_pipeline.postgres import corpora, sagas
from ingest_pipeline.postgres.corpora import GenerationRow
from ingest_pipeline.postgres.database import Connection, DatabaseConflictError
from ingest_pipeline.postgres.sagas import SagaKind, SagaState
from ingest_pipeline.saga.heartbeat import fail


def lock(connection: Connection, corpus: Corpus) -> GenerationRow:
    """Take the row lock of the generation, and read its head for writing."""
    with boundary(Boundary.LOCK_TAKEN):
        row = corpora.lock_generation(connection, corpus.generation)
    if row is None:
        raise ConfigurationError(f"Corpus {corpus.name!r} is gone from the database", "Ingest it again to create it.")
    corpus.check_table(row)
    return row


def reconcile(corpus: Corpus, *, keep: UUID | None = None, over_foreign: bool = False) -> list[UUID]:
    """Make latest equal head.

    Args:
        corpus: The corpus to reconcile.
        keep: The caller's own saga. Its version is undone like the others, but the saga may publish again.
        over_foreign: Also undo versions that something else or another database wrote, as the user decided.

    Returns:
        The other sagas whose versions were undone; they have ended.

    Raises:
        ForeignWriteError: Something else wrote a version above head.
        OtherDatabaseError: Another database wrote one, or the table is newer than this database.
        CommitRefusedError: Zombies wrote a version during every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _reconcile_once(corpus, keep, over_foreign=over_foreign)
        except (CommitRefusedError, DatabaseConflictError):
            continue
    return _reconcile_once(corpus, keep, over_foreign=over_foreign)


def _reconcile_once(corpus: Corpus, keep: UUID | None, *, over_foreign: bool) -> list[UUID]:
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        above = versions_above(corpus, head)
        if not above:
            return []
        if not over_foreign:
            check_may_undo(connection, corpus, head, above)
        restoring = begin_restore(connection, corpus, head)
    try:
        return _restore_head(corpus, restoring, keep, over_foreign=over_foreign)
    except BaseException as error:
        fail(corpus, restoring, error)
        raise


def _restore_head(corpus: Corpus, restoring: UUID, keep: UUID | None, *, over_foreign: bool) -> list[UUID]:
    # Each attempt has a new transaction, which fails before another restore if the lock was lost.
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        above = versions_above(corpus, head)
        if not above:
            sagas.mark_failed(connection, restoring, "another writer restored head first")
            return []
        if over_foreign:
            _record_unknown(connection, corpus, head, above)
        else:
            check_may_undo(connection, corpus, head, above)
        restored = restore_as_head(
            connection, corpus, head, content=head.head_version, latest=max(above), saga=restoring
        )
        undone = [mark.saga for mark in above.values() if mark is not None and mark.saga != keep]
        with boundary(Boundary.SETTLED):
            return sagas.mark_compensated(connection, undone, f"head {head.head_version} was restored as {restored}")


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


def begin_restore(connection: Connection, corpus: Corpus, head: GenerationRow) -> UUID:
    """Begin a saga that restores a version. Its transaction ends before the restore begins.

    Otherwise the ledger would lack the saga of a restore that died, and it would look like another database's saga.
    """
    saga = sagas.begin(connection, generation=corpus.generation, kind=SagaKind.RESTORE, base_version=head.head_version)
    sagas.mark_prepared(connection, saga)
    return saga


def restore_as_head(
    connection: Connection, corpus: Corpus, head: GenerationRow, *, content: int, latest: int, saga: UUID
) -> int:
    """Publish the content of a version again, above the latest one, with a saga that `begin_restore` began.

    Raises:
        CommitRefusedError: A zombie wrote a version meanwhile; nothing is published.
        ForeignWriteError, OtherDatabaseError: Another writer made a version meanwhile, which is the latest again.
    """
    mark = mark_for(connection, head, saga)
    version = corpus.table.restore(content, mark)
    check_version(corpus, head, mark, made=version, expected=latest + 1)
    sagas.mark_published(connection, saga, base_version=head.head_version, version=version)
    with boundary(Boundary.HEAD_MOVED):
        corpora.move_head(connection, corpus.generation, version=version, saga=saga)
    return version


def check_version(corpus: Corpus, head: GenerationRow, mark: VersionMark, *, made: int, expected: int) -> None:
    """The second fence: refuse a version that Lance rebased over another commit, since it is not based on head.

    If something else made the other commit, only our version is undone, because the one below it must not be.

    Raises:
        CommitRefusedError, ForeignWriteError, OtherDatabaseError: As in `restore_as_head`.
    """
    if made == expected:
        return
    between = {version: corpus.table.mark_of(version) for version in range(expected, made)}
    try:
        # Uses another connection, because the transaction of a zombie was ended.
        with corpus.database.transaction() as connection:
            check_may_undo(connection, corpus, head, between)
    except (ForeignWriteError, OtherDatabaseError):
        corpus.table.restore(made - 1, mark)
        raise
    raise CommitRefusedError(f"Version {expected} of {corpus.table.uri} was taken by another writer")


def foreign_write(corpus: Corpus, version: int, head: GenerationRow) -> ForeignWriteError:
    """The error that asks the user to decide about a foreign version."""
    return ForeignWriteError(
        f"Version {version} of the table of corpus {corpus.name!r} was written by something else, above head "
        f"{head.head_version}",
        "Nothing was published. Keep its content with `ingest-pipeline recover --adopt`, or undo it with "
        "`ingest-pipeline recover --restore`.",
    )
