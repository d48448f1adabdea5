"""Making the latest version equal head again, by whoever holds the lock and finds them apart.

A version above head belongs to a saga that died, lost its COMMIT or woke up late. It is undone by restoring head's
content as a new version, to which head moves in the same transaction. Lance refuses whatever was planned in between.
"""

from __future__ import annotations

from uuid import UUID

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import CorpusRow
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Connection
from ingest_pipeline.errors import AuditError, ConfigurationError, ForeignWriteError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance_table import CommitRefusedError


def lock(connection: Connection, corpus: Corpus) -> CorpusRow:
    """Take the corpus' row lock, which is also how head is read for writing."""
    with boundary(Boundary.LOCK_TAKEN):
        row = catalog.lock_corpus(connection, corpus.name)
    if row is None:
        raise ConfigurationError(f"Corpus {corpus.name!r} is gone from the database", "Ingest it again to create it.")
    return row


def reconcile(corpus: Corpus, *, keep: UUID | None = None) -> list[UUID]:
    """Make latest equal head.

    Args:
        corpus: Which one.
        keep: The caller's own saga: its version is undone like the others, but it may publish again.

    Returns:
        The other sagas whose versions were undone; they have ended.

    Raises:
        ForeignWriteError: Something else wrote a version above head.
        AuditError: The table lost the version that head names.
    """
    with corpus.database.transaction() as connection:
        return reconcile_locked(connection, corpus, lock(connection, corpus), keep=keep)


def reconcile_locked(
    connection: Connection, corpus: Corpus, head: CorpusRow, *, keep: UUID | None = None, over_foreign: bool = False
) -> list[UUID]:
    """As `reconcile`, for a caller that holds the lock and will commit.

    With ``over_foreign``, versions that something else wrote are taken back too: a person decided so.
    """
    latest = corpus.table.latest_version()
    if latest == head.head_version:
        return []
    if latest < head.head_version:
        raise AuditError(
            f"Corpus {corpus.name!r} has head {head.head_version}, but its table ends at version {latest}",
            "The table was replaced or lost versions: restore it from a backup, or ingest into a new corpus.",
        )
    undone = [saga for saga in _sagas_above(corpus, head, latest, over_foreign=over_foreign) if saga != keep]
    saga = ledger.begin(connection, corpus=corpus.name, kind="restore", base_version=head.head_version)
    ledger.mark_prepared(connection, saga)
    version = corpus.table.restore(head.head_version, saga)
    if version != latest + 1:
        raise CommitRefusedError(
            f"Another version of {corpus.table.uri} came before the restore of {head.head_version}"
        )
    ledger.mark_published(connection, saga, base_version=head.head_version, version=version)
    catalog.move_head(connection, corpus.name, version=version, saga=saga)
    with boundary(Boundary.SETTLED):
        return ledger.mark_compensated(connection, undone, f"head {head.head_version} was restored as {version}")


def _sagas_above(corpus: Corpus, head: CorpusRow, latest: int, *, over_foreign: bool) -> list[UUID]:
    found: list[UUID] = []
    for version in range(head.head_version + 1, latest + 1):
        saga = corpus.table.saga_of(version)
        if saga is not None:
            found.append(saga)
        elif not over_foreign:
            raise ForeignWriteError(
                f"Version {version} of the table of corpus {corpus.name!r} was written by something else, above head "
                f"{head.head_version}",
                "Nothing was changed. Keep its content with `ingest-pipeline recover --adopt`, or take it back with "
                "`ingest-pipeline recover --restore`.",
            )
    return found
