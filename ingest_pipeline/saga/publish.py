"""Publishing: the short part of a saga, under one row lock. Vectors, catalog rows and head move together or not at all.

    BEGIN; lock the corpus' row, which names head
    if the latest version is not head: reconcile, begin again
    end the catalog rows that are replaced
    Lance stages a version on head, with the saga's id and this database's; no reader sees it
    publish the catalog rows, with the fragments that Lance made
    write the saga's end and the new head, with the name of the staged manifest
    if the version is not head + 1, or something else made one of that number: begin again
    COMMIT
    give the manifest its canonical name, so that every reader sees the version

Before COMMIT nothing is visible, so nothing has to be undone if anything fails. If the answer to COMMIT is lost,
`settle` takes the lock again and reads the ledger. If the writer dies after COMMIT, the next writer, reader or recovery
installs the manifest.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Protocol
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.head_manifest import install_published
from ingest_pipeline.corpus.saga_timeouts import ATTEMPTS, PATIENCE_SECONDS
from ingest_pipeline.corpus.table_identity import mark_for
from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import TableChange
from ingest_pipeline.lance.versions.manifests import CommitRefusedError
from ingest_pipeline.postgres.catalog import corpora
from ingest_pipeline.postgres.catalog.corpora import GenerationRow
from ingest_pipeline.postgres.database import CommitStateUnknownError, Connection, DatabaseConflictError
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.saga.reconcile import check_version, lock, reconcile
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.telemetry.metrics import PUBLISH_RETRIES

log = get_logger(__name__)


class CatalogRows(Protocol):
    """The SQL side of a publication. Both calls work in the publication's transaction."""

    def write(self, connection: Connection, base: int, version: int) -> TableChange:
        """Write what ``version`` changes in the catalog, and return the matching change of the table.

        Raises:
            ConflictError: The prepared rows no longer match the state at head.
        """
        ...

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        """Write the catalog rows that have the fragment ids which Lance gave to the staged files, by file name."""


class _TryAgainError(Exception):
    """Raised to repeat an attempt, which changed nothing."""


def publish(corpus: Corpus, saga: UUID, rows: CatalogRows) -> int:
    """Publish a prepared saga of any kind.

    Returns:
        The published version, which is head now.

    Raises:
        ConflictError, FencedError: Nothing was published; plan again.
        ForeignWriteError: Something else wrote to the table; the user must decide about that version.
        OtherDatabaseError: Another database wrote to the table, or the table is newer than this database.
        UnavailableError: Nothing was published, or, if the message says so, the saga is in doubt until it is settled.
    """
    attempts, end = 0, monotonic() + PATIENCE_SECONDS
    while attempts < ATTEMPTS and monotonic() < end:
        attempts += 1
        try:
            version = _attempt(corpus, saga, rows)
        except _TryAgainError as reason:
            PUBLISH_RETRIES.add(1)
            undone = reconcile(corpus)
            log.warning("corpus %s: saga %s tries again: %s; undone: %s", corpus.generation, saga, reason, undone)
            continue
        with boundary(Boundary.ACKNOWLEDGED):
            return version
    raise UnavailableError(
        f"Saga {saga} of corpus {corpus.name!r} met other writers at every one of {attempts} attempts and was not "
        "published",
        "Run again.",
    )


def _attempt(corpus: Corpus, saga: UUID, rows: CatalogRows) -> int:
    is_staged = False
    try:
        with corpus.database.transaction() as connection:
            head = _locked_head(connection, corpus)
            base, version = head.head_version, head.head_version + 1
            with boundary(Boundary.ROWS_WRITTEN):
                change = rows.write(connection, base, version)
            is_staged = True
            made = corpus.table.stage_version(base, change, mark_for(connection, head, saga))
            named = made.fragments_named([fragment.name for fragment in change.added])
            rows.record_fragments(connection, version, named)
            with boundary(Boundary.HEAD_MOVED):
                sagas.mark_published(connection, saga, base_version=base, version=version)
                corpora.move_head(connection, corpus.generation, version=version, saga=saga, manifest=made.manifest)
            with boundary(Boundary.VERSION_CHECKED):
                check_version(corpus, made.number, version)
    except CommitStateUnknownError as error:
        return _settled(corpus, saga, error)
    except (CommitRefusedError, DatabaseConflictError) as error:
        raise _TryAgainError(str(error)) from error
    except UnavailableError as error:
        raise _rolled_back(corpus, saga, error) if is_staged else error from error
    moved = replace(head, head_version=version, head_saga=saga, staged_manifest=made.manifest)
    install_published(corpus.table, moved)
    return version


def _locked_head(connection: Connection, corpus: Corpus) -> GenerationRow:
    head = lock(connection, corpus)
    corpus.check_generation(head)
    latest = corpus.table.latest_version()
    if latest != head.head_version:
        raise _TryAgainError(f"the latest version was {latest}, and head {head.head_version}")
    return head


def _settled(corpus: Corpus, saga: UUID, error: CommitStateUnknownError) -> int:
    """The version of a saga whose COMMIT got no answer, if it was published."""
    try:
        version = settle(corpus, saga)
    except UnavailableError as second:
        raise UnavailableError(
            f"Saga {saga} of corpus {corpus.name!r} is in doubt, because Postgres or the table stopped answering "
            f"({error})",
            "The next publication or `ingest-pipeline recover` settles it; readers see the last published version.",
        ) from second
    if version is None:
        raise _rolled_back(corpus, saga, error) from error
    log.warning("corpus %s: saga %s was published although the answer was lost (%s)", corpus.generation, saga, error)
    return version


def _rolled_back(corpus: Corpus, saga: UUID, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"Saga {saga} of corpus {corpus.name!r} was rolled back: {error}", "Nothing was published. Run again."
    )


def settle(corpus: Corpus, saga: UUID) -> int | None:
    """Determine under the lock whether a saga was published.

    Once the lock is free, the transaction that had it has ended, committed or not.

    Returns:
        The published version, or None if the saga was not published.
    """
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        row = sagas.read(connection, saga)
    return None if row is None else row.published_version
