"""Removing what belongs to no retained publication and to no running saga: by name, never by age.

A data file's name begins with its saga's id, so the ledger says whether its writer may still want it. While Lance
writes it on a local disk it has a name that says nothing: it may be anybody's as long as a saga is live. A data file of
any other name is somebody else's and left alone. The folder of an index segment has its saga's id too; one that the
ledger does not know is left alone. Versions, transactions and deletions are written under the corpus' lock only. What
else lies in the folder, as tags do, is not ours to judge.

The order of the looks is what makes sweeping beside living writers right. Files are listed first, under the lock, so
that no publication is half way. A saga that is not live after that has ended: if it published, the versions that are
read last hold its files; if not, nobody wants them. A file that came later was not listed. So the judgement holds for
ever, and what it condemns is removed without the lock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline import ledger
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.reconciliation import lock, reconcile

_NOT_OURS_TO_JUDGE = "_versions/latest_version_hint.json"
_HALF_WRITTEN = "data/.tmp"
_UNDER_THE_LOCK = ("_versions/", "_transactions/", "_deletions/")
_UUID = "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_STAGED = re.compile(rf"data/{_UUID}-\d+\.lance")
_SEGMENT = re.compile(rf"_indices/{_UUID}/.*")


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
    if not dry_run:
        reconcile(corpus)
    versions = _undone_versions(corpus)
    if versions and not dry_run:
        corpus.table.remove_versions(versions)
    files = litter(corpus)
    if not dry_run:
        for name in files:
            corpus.table.remove_file(name)
    with corpus.database.transaction() as connection:
        rows = ledger.forget_ended(connection, corpus.name, dry_run=dry_run)
    return SweepReport(files, versions, rows)


def litter(corpus: Corpus) -> list[str]:
    """Files in the table's folder that belong to nothing."""
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        present = corpus.table.all_files()
    segments = {UUID(found[1]) for name in present if (found := _SEGMENT.fullmatch(name))}
    with corpus.database.transaction() as connection:
        live = ledger.live_sagas(connection, corpus.name)
        ended = ledger.known_sagas(connection, corpus.name, segments) - live
    tracked = corpus.table.tracked_files()
    return sorted(name for name in present - tracked if _is_litter(name, live, ended))


def saga_of_file(name: str) -> UUID | None:
    """The saga in the name of a data file or of an index segment's file, None if the name has none."""
    found = _STAGED.fullmatch(name) or _SEGMENT.fullmatch(name)
    return UUID(found[1]) if found else None


def _is_litter(name: str, live: set[UUID], ended: set[UUID]) -> bool:
    if name == _NOT_OURS_TO_JUDGE:
        return False
    if name.startswith(_HALF_WRITTEN):
        return not live
    if name.startswith("_indices/"):
        segment = _SEGMENT.fullmatch(name)
        return segment is not None and UUID(segment[1]) in ended
    if name.startswith("data/"):
        staged = _STAGED.fullmatch(name)
        return staged is not None and UUID(staged[1]) not in live
    return name.startswith(_UNDER_THE_LOCK)


def _undone_versions(corpus: Corpus) -> list[int]:
    """Versions below head that never were head. One whose saga is live holds files that it will publish again."""
    existing = corpus.table.versions()
    with corpus.database.transaction() as connection:
        published = ledger.published_versions(connection, corpus.name)
        live = ledger.live_sagas(connection, corpus.name)
    undone = [version for version in existing if version < max(published) and version not in published]
    return [version for version in undone if corpus.table.saga_of(version) not in live]
