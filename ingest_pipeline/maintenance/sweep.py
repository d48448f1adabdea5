"""Sweep: removes files and rows that no retained publication and no running saga needs, by their names, not their age.

A data file's name begins with its saga's id, so the ledger shows whether its writer may still need the file. While
Lance writes a file on a local disk, the file has a temporary name without an id: such a file is kept as long as any
saga is live. A data file with any other name belongs to another program and is not touched. The folder of an index
segment and a file of the spool are named after their sagas too. If the ledger lacks the saga of a file, another
database wrote the file, or this database is older than the table: the file is kept and reported. A saga is in the
ledger before its first file is written, and is never removed from the ledger. Versions, transactions and deletions are
written under the generation's lock only. Anything else in the folder, such as tags, is not touched.

A file of the spool is needed as long as the ledger has its row, and may be needed while its saga is live. A writer that
was taken for dead may still record one. So the sweep removes such a file under the lock of its saga's row, without
which no answer is recorded, and the writer writes the file again if its saga has ended.

The order of the checks makes a sweep safe while writers are active. Files are listed first, under the lock, when no
publication is in progress. A saga that is not live after that has ended: if it published, the versions that are read
last contain its files; if not, nothing needs them. A file that was written later was not listed. So the decision cannot
become wrong, and the files are removed without the lock.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.corpus.opening import check_writable
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.postgres.catalog import gates, history
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.sagas import Outcome, SagaState
from ingest_pipeline.saga.reconcile import lock, reconcile

_LANCE_HINT = "_versions/latest_version_hint.json"
_HALF_WRITTEN = "data/.tmp"
_UNDER_THE_LOCK = ("_versions/", "_transactions/", "_deletions/")
_UUID = "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_STAGED = re.compile(rf"data/{_UUID}-\d+\.lance")
_SEGMENT = re.compile(rf"_indices/{_UUID}/.*")
_SPOOLED = re.compile(rf"_spool/{_UUID}-(\d+)\.f32")


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed, or would remove."""

    files: list[str]
    versions: list[int]
    rows: int
    """Number of ledger and catalog rows of sagas that ended without a publication."""
    unknown: list[str] = field(default_factory=list[str])
    """Files of sagas that the ledger does not know. They were not touched."""


def sweep(corpus: Corpus, *, dry_run: bool = False) -> SweepReport:
    """Reconcile, then remove orphan files, undone versions, and rows of sagas that published nothing.

    Raises:
        ForeignWriteError: A version that this package did not write is above head.
        OtherDatabaseError: Another database writes the table, or this database is older than the table.
        UnavailableError: One of the stores does not answer.
    """
    check_writable(corpus)
    if not dry_run:
        reconcile(corpus)
    versions = _undone_versions(corpus)
    if versions and not dry_run:
        corpus.table.remove_versions(versions)
    # The rows first: a row without its file would count as lost.
    with corpus.database.transaction() as connection:
        rows = sagas.forget_ended(connection, corpus.generation, dry_run=dry_run)
    found = find_orphan_files(corpus)
    if not dry_run:
        _remove(corpus, found.files)
    return SweepReport(found.files, versions, rows, found.unknown)


def _remove(corpus: Corpus, names: Iterable[str]) -> None:
    spooled: defaultdict[UUID, dict[int, str]] = defaultdict(dict)
    for name in names:
        if found := _SPOOLED.fullmatch(name):
            spooled[UUID(found[1])][int(found[2])] = name
        else:
            corpus.table.remove_file(name)
    for saga, files in spooled.items():
        with corpus.database.transaction() as connection:
            recorded = embedding_cache.lock_batches(connection, saga)
            for ordinal in files.keys() - recorded:
                corpus.table.remove_file(files[ordinal])


@dataclass(frozen=True, slots=True)
class OrphanFiles:
    """Files that no version contains and no live saga may need."""

    files: list[str]
    """Files of sagas that have ended."""
    unknown: list[str]
    """Files of sagas that the ledger does not know."""


def orphans(corpus: Corpus) -> list[str]:
    """Names of the files that a sweep would remove."""
    return find_orphan_files(corpus).files


def find_orphan_files(corpus: Corpus) -> OrphanFiles:
    """Find the files that a sweep would remove, and those of sagas that this database does not know."""
    with corpus.database.transaction() as connection:
        lock(connection, corpus)
        present = corpus.table.all_files()
    owners = {name: saga for name in present if (saga := saga_of_file(name))}
    with corpus.database.transaction() as connection:
        live = sagas.live_sagas(connection, corpus.generation)
        # Read after the live ones, so that a saga that is blocked in between is in one of the two.
        blocked = gates.blocked_sagas(connection, corpus.generation)
        known = sagas.known_sagas(connection, corpus.generation, {*owners.values()})
        recorded = embedding_cache.spooled_batches(connection, corpus.generation)
    untracked = present - corpus.table.tracked_files() - {spool_name(*batch) for batch in recorded}
    return OrphanFiles(
        sorted(name for name in untracked if _is_orphan(name, live, known - live - blocked)),
        sorted(name for name in untracked if name in owners and owners[name] not in known),
    )


def saga_of_file(name: str) -> UUID | None:
    """The saga in the name of a data file, an index segment's file or a spool's file; None if the name has none."""
    found = _STAGED.fullmatch(name) or _SEGMENT.fullmatch(name) or _SPOOLED.fullmatch(name)
    return UUID(found[1]) if found else None


def _is_orphan(name: str, live: set[UUID], ended: set[UUID]) -> bool:
    if name == _LANCE_HINT:
        return False
    if name.startswith(_HALF_WRITTEN):
        return not live
    if name.startswith(("data/", "_indices/", "_spool/")):
        return saga_of_file(name) in ended
    return name.startswith(_UNDER_THE_LOCK)


def _undone_versions(corpus: Corpus) -> list[int]:
    """Versions below head that never were head, except those of live sagas, whose files will be published again.

    Retention removes the versions of other databases.
    """
    existing = corpus.table.versions()
    with corpus.database.transaction() as connection:
        published = history.published_versions(connection, corpus.generation, existing)
    never = [version for version in existing if version < max(published, default=0) and version not in published]
    makers = {version: corpus.table.saga_of(version) for version in never}
    with corpus.database.transaction() as connection:
        ends = sagas.outcomes(connection, {maker for maker in makers.values() if maker is not None})
    return [version for version, maker in makers.items() if maker is None or _was_undone(ends.get(maker))]


def _was_undone(end: Outcome | None) -> bool:
    match end:
        case None | Outcome(state=SagaState.PREPARING | SagaState.PREPARED | SagaState.BLOCKED | SagaState.ADOPTED):
            return False
        case _:
            return True
