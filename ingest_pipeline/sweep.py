"""Removing what belongs to no retained publication and to no running saga: by name, never by age.

A data file's name begins with its saga's id, so the ledger says whether its writer may still want it. Deletion and
transaction files are written under the corpus' lock only, so whoever holds the lock may judge them.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline import ledger
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.database import Connection
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.reconciliation import lock, reconcile_locked

_NOT_OURS_TO_JUDGE = ("_versions/latest_version_hint.json", "_indices/")


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What was removed, or would be."""

    files: list[str]
    versions: list[int]
    rows: int
    """Ledger and catalog rows of sagas that ended without a publication."""


def sweep(corpus: Corpus, *, dry_run: bool = False) -> SweepReport:
    """Reconcile, then remove abandoned files, versions that were undone, and rows of sagas that published nothing.

    Raises:
        ForeignWriteError: A version that is not ours stands above head.
        UnavailableError: One of the stores does not answer.
    """
    with corpus.database.transaction() as connection:
        head = lock(connection, corpus)
        if not dry_run:
            reconcile_locked(connection, corpus, head)
        versions = _undone_versions(connection, corpus)
        if versions and not dry_run:
            corpus.table.remove_versions(versions)
        files = _litter(connection, corpus)
        if not dry_run:
            for name in files:
                with boundary(Boundary.FILE_REMOVED):
                    corpus.table.remove_file(name)
        rows = ledger.forget_ended(connection, corpus.name, dry_run=dry_run)
    return SweepReport(files, versions, rows)


def litter(corpus: Corpus) -> list[str]:
    """Files in the table's folder that belong to nothing."""
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        return _litter(connection, corpus)


def _litter(connection: Connection, corpus: Corpus) -> list[str]:
    live = ledger.live_sagas(connection, corpus.name)
    tracked = corpus.table.tracked_files()
    present = corpus.table.all_files()
    return sorted(name for name in present - tracked if _is_litter(name, live))


def _is_litter(name: str, live: set[UUID]) -> bool:
    if name.startswith(_NOT_OURS_TO_JUDGE):
        return False
    if name.startswith("data/"):
        return _saga_of(name) not in live
    return True


def _saga_of(name: str) -> UUID | None:
    """The saga that staged a data file. None: it was never named by us, so no saga of ours wants it."""
    try:
        return UUID(name.removeprefix("data/").removeprefix(".tmp").lstrip("/")[:36])
    except ValueError:
        return None


def _undone_versions(connection: Connection, corpus: Corpus) -> list[int]:
    published = ledger.published_versions(connection, corpus.name)
    head = max(published)
    return [version for version in corpus.table.versions() if version < head and version not in published]
