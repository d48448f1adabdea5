"""Removing what belongs to no retained publication and to no running saga: by name, never by age.

A data file's name begins with its saga's id, so the ledger says whether its writer may still want it. While Lance
writes it on a local disk it has a name that says nothing: it may be anybody's as long as a saga is live. A data file of
any other name is somebody else's and left alone. The folder of an index segment has its saga's id too. What a saga
wrote that the ledger does not know is another database's, or this one is older than the table: it is left alone and
reported. A saga is in the ledger before its first file is written, and never leaves it. Versions, transactions and
deletions are written under the corpus' lock only. What else lies in the folder, as tags do, is not ours to judge.

The order of the looks is what makes sweeping beside living writers right. Files are listed first, under the lock, so
that no publication is half way. A saga that is not live after that has ended: if it published, the versions that are
read last hold its files; if not, nobody wants them. A file that came later was not listed. So the judgement holds for
ever, and what it condemns is removed without the lock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus, check_writable
from ingest_pipeline.postgres import ledger
from ingest_pipeline.saga.reconcile import lock, reconcile

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
    unknown: list[str] = field(default_factory=list[str])
    """Files of sagas that the ledger does not know, which were left alone."""


def sweep(corpus: Corpus, *, dry_run: bool = False) -> SweepReport:
    """Reconcile, then remove abandoned files, versions that were undone, and rows of sagas that published nothing.

    Raises:
        ForeignWriteError: A version that is not ours stands above head.
        OtherDatabaseError: The table is written by another database, or this one is older than it.
        UnavailableError: One of the stores does not answer.
    """
    check_writable(corpus)
    if not dry_run:
        reconcile(corpus)
    versions = _undone_versions(corpus)
    if versions and not dry_run:
        corpus.table.remove_versions(versions)
    left = look_for_litter(corpus)
    if not dry_run:
        for name in left.files:
            corpus.table.remove_file(name)
    with corpus.database.transaction() as connection:
        rows = ledger.forget_ended(connection, corpus.generation, dry_run=dry_run)
    return SweepReport(left.files, versions, rows, left.unknown)


@dataclass(frozen=True, slots=True)
class Litter:
    """Files that no version holds and no live saga may want."""

    files: list[str]
    """Of sagas that have ended."""
    unknown: list[str]
    """Of sagas that the ledger does not know."""


def orphans(corpus: Corpus) -> list[str]:
    """Files in the table's folder that belong to nothing."""
    return look_for_litter(corpus).files


def look_for_litter(corpus: Corpus) -> Litter:
    """Files in the table's folder that belong to nothing, and those of which this database cannot say."""
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        present = corpus.table.all_files()
    sagas = {name: saga for name in present if (saga := saga_of_file(name))}
    with corpus.database.transaction() as connection:
        live = ledger.live_sagas(connection, corpus.generation)
        known = ledger.known_sagas(connection, corpus.generation, {*sagas.values()})
    untracked = present - corpus.table.tracked_files()
    return Litter(
        sorted(name for name in untracked if _is_litter(name, live, known - live)),
        sorted(name for name in untracked if name in sagas and sagas[name] not in known),
    )


def saga_of_file(name: str) -> UUID | None:
    """The saga in the name of a data file or of an index segment's file, None if the name has none."""
    found = _STAGED.fullmatch(name) or _SEGMENT.fullmatch(name)
    return UUID(found[1]) if found else None


def _is_litter(name: str, live: set[UUID], ended: set[UUID]) -> bool:
    if name == _NOT_OURS_TO_JUDGE:
        return False
    if name.startswith(_HALF_WRITTEN):
        return not live
    if name.startswith(("data/", "_indices/")):
        return saga_of_file(name) in ended
    return name.startswith(_UNDER_THE_LOCK)


def _undone_versions(corpus: Corpus) -> list[int]:
    """Versions below head that never were head. One whose saga is live holds files that it will publish again.

    One of another database goes with retention.
    """
    existing = corpus.table.versions()
    with corpus.database.transaction() as connection:
        published = ledger.published_versions(connection, corpus.generation, existing)
    never = [version for version in existing if version < max(published, default=0) and version not in published]
    makers = {version: corpus.table.saga_of(version) for version in never}
    with corpus.database.transaction() as connection:
        ends = ledger.outcomes(connection, {maker for maker in makers.values() if maker is not None})
    return [version for version, maker in makers.items() if maker is None or _was_undone(ends.get(maker))]


def _was_undone(end: ledger.Outcome | None) -> bool:
    return end is not None and end.state not in {"preparing", "prepared", "adopted"}
