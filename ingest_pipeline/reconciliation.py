"""Making the latest version equal head again, by whoever holds the lock and finds them apart.

A version above head belongs to a saga that died, lost its COMMIT or woke up late. It is undone by restoring head's
content as a new version, to which head moves in the same transaction. Lance refuses whatever was planned in between.
"""

from __future__ import annotations

from uuid import UUID

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import CorpusRow
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Connection, DatabaseConflictError
from ingest_pipeline.errors import AuditError, ConfigurationError, ForeignWriteError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance_table import CommitRefusedError

# Each attempt beyond the first means that a zombie woke up just then, or that Postgres chose us to give way.
_ATTEMPTS = 5


def lock(connection: Connection, corpus: Corpus) -> CorpusRow:
    """Take the corpus' row lock, which is also how head is read for writing."""
    with boundary(Boundary.LOCK_TAKEN):
        row = catalog.lock_corpus(connection, corpus.name)
    if row is None:
        raise ConfigurationError(f"Corpus {corpus.name!r} is gone from the database", "Ingest it again to create it.")
    corpus.check_table(row)
    return row


def reconcile(corpus: Corpus, *, keep: UUID | None = None, over_foreign: bool = False) -> list[UUID]:
    """Make latest equal head.

    Args:
        corpus: Which one.
        keep: The caller's own saga: its version is undone like the others, but it may publish again.
        over_foreign: Take back versions that something else wrote, too: a person decided so.

    Returns:
        The other sagas whose versions were undone; they have ended.

    Raises:
        ForeignWriteError: Something else wrote a version above head.
        AuditError: The table lost the version that head names.
        CommitRefusedError: Zombies came between at every attempt.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return _reconcile_once(corpus, keep, over_foreign=over_foreign)
        except (CommitRefusedError, DatabaseConflictError):
            continue
    return _reconcile_once(corpus, keep, over_foreign=over_foreign)


def _reconcile_once(corpus: Corpus, keep: UUID | None, *, over_foreign: bool) -> list[UUID]:
    # A new transaction for every attempt: it fails where the lock was lost, before anything more is restored.
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        above = versions_above(corpus, head)
        if not above:
            return []
        foreign = [version for version, saga in above.items() if saga is None]
        if foreign and not over_foreign:
            raise foreign_write(corpus, foreign[-1], head)
        restored = restore_as_head(connection, corpus, head, head.head_version, max(above))
        undone = [saga for saga in above.values() if saga is not None and saga != keep]
        with boundary(Boundary.SETTLED):
            return ledger.mark_compensated(connection, undone, f"head {head.head_version} was restored as {restored}")


def versions_above(corpus: Corpus, head: CorpusRow) -> dict[int, UUID | None]:
    """Versions that are not published, ascending, with the sagas that made them; None: something else did.

    Raises:
        AuditError: The table lost the version that head names.
    """
    latest = corpus.table.latest_version()
    if latest < head.head_version:
        raise AuditError(
            f"Corpus {corpus.name!r} has head {head.head_version}, but its table ends at version {latest}",
            "The table was replaced or lost versions: restore it from a backup, or ingest into a new corpus.",
        )
    return {version: corpus.table.saga_of(version) for version in range(head.head_version + 1, latest + 1)}


def restore_as_head(connection: Connection, corpus: Corpus, head: CorpusRow, content: int, latest: int) -> int:
    """Publish the content of a version again, on top of the latest one, by a saga of its own.

    Raises:
        CommitRefusedError: A zombie's version came between; nothing is published.
        ForeignWriteError: A version that is not ours came between; it is the latest again.
    """
    saga = ledger.begin(connection, corpus=corpus.name, kind="restore", base_version=head.head_version)
    ledger.mark_prepared(connection, saga)
    version = corpus.table.restore(content, saga)
    check_version(corpus, head, version, latest + 1)
    ledger.mark_published(connection, saga, base_version=head.head_version, version=version)
    with boundary(Boundary.HEAD_MOVED):
        catalog.move_head(connection, corpus.name, version=version, saga=saga)
    return version


def check_version(corpus: Corpus, head: CorpusRow, made: int, expected: int) -> None:
    """The second fence: Lance rebased our commit over somebody's, so it is not the change of head that was meant.

    If something else came between, our version is taken back and nothing else: what lies below is not ours to undo.

    Raises:
        CommitRefusedError, ForeignWriteError: As in `restore_as_head`.
    """
    if made == expected:
        return
    foreign = [version for version in range(expected, made) if corpus.table.saga_of(version) is None]
    if foreign:
        ours = corpus.table.saga_of(made)
        assert ours is not None  # noqa: S101  we made it
        corpus.table.restore(made - 1, ours)
        raise foreign_write(corpus, foreign[-1], head)
    raise CommitRefusedError(f"Version {expected} of {corpus.table.uri} was taken by another writer")


def foreign_write(corpus: Corpus, version: int, head: CorpusRow) -> ForeignWriteError:
    """What to tell a person who has to decide about a version that is not ours."""
    return ForeignWriteError(
        f"Version {version} of the table of corpus {corpus.name!r} was written by something else, above head "
        f"{head.head_version}",
        "Nothing was published. Keep its content with `ingest-pipeline recover --adopt`, or take it back with "
        "`ingest-pipeline recover --restore`.",
    )
