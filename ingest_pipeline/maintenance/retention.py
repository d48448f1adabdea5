"""Retention: removes old versions that readers, rollbacks and running sagas no longer need.

A version is kept if it is head or was head a few days ago, is among the last publications, has a tag, or if a live saga
was planned on it or rolls back to it. Versions older than the oldest such version are removed in four steps: what their
publications brought is counted, the ledger records that they are retired, their catalog rows are deleted, and the
versions are deleted with the files that no other version contains. Rows are counted and deleted in small transactions
without the lock. If the process dies at any point, the next maintenance continues.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres.catalog import documents, history
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import extension_results
from ingest_pipeline.postgres.ledger.sagas import RetiredBy
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import Retention, counted

log = get_logger(__name__)

_DOCUMENTS_AT_ONCE = 500
# A publication has up to 8,192 documents.
_PUBLICATIONS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What retention removed."""

    oldest_version: int
    """The oldest version that is kept."""
    versions: int
    documents: int
    """Catalog rows of documents that only the removed versions showed. Their chunks' rows were deleted too."""


def retain(corpus: Corpus, retention: Retention) -> RetentionReport:
    """Remove the versions that retention no longer keeps, in both stores. Readers at other versions are not affected.

    Raises:
        UnavailableError: One of the stores failed; the next call continues.
    """
    tagged = min(corpus.table.tagged_versions(), default=None)

    def oldest_needed(connection: Connection) -> int:
        return history.oldest_needed(
            connection,
            corpus.generation,
            days=retention.days,
            publications=retention.publications,
            at_least=tagged,
        )

    with corpus.database.transaction() as connection:
        oldest = oldest_needed(connection)
    count_publications(corpus, oldest)
    with corpus.database.transaction() as connection:
        # Under the lock, so that no saga is planned on a version that is just being retired.
        lock(connection, corpus)
        with boundary(Boundary.RETIRED):
            oldest = min(oldest, oldest_needed(connection))
            history.retire_versions(connection, corpus.generation, oldest, by=RetiredBy.RETENTION)
    documents = _forget_documents(corpus, oldest)
    _forget_results(corpus, retention.days)
    gone = [version for version in corpus.table.versions() if version < oldest]
    if gone:
        corpus.table.remove_versions(gone)
        log.info("corpus %s: removed %s before %d", corpus.generation, counted(len(gone), "version"), oldest)
    return RetentionReport(oldest, len(gone), documents)


def count_publications(corpus: Corpus, before: int, among: Collection[int] | None = None) -> None:
    """Keep the counts of publications that will be retired, in small transactions without the lock.

    Args:
        corpus: The corpus.
        before: The first version that is not retired.
        among: The versions to retire. None: all before that one.
    """
    count = partial(history.count_publications, among=among)
    _in_steps(corpus, before, count, _PUBLICATIONS_AT_ONCE)


def _forget_documents(corpus: Corpus, oldest: int) -> int:
    steps = (documents.forget_superseded, documents.forget_tombstones)
    return sum(_in_steps(corpus, oldest, forget, _DOCUMENTS_AT_ONCE) for forget in steps)


def _forget_results(corpus: Corpus, days: int) -> None:
    """Delete results of the user's extensions that no document of a kept version needs."""
    forgotten = _DOCUMENTS_AT_ONCE
    while forgotten == _DOCUMENTS_AT_ONCE:
        with corpus.database.transaction() as connection:
            forgotten = extension_results.forget_results(connection, corpus.name, days=days, limit=_DOCUMENTS_AT_ONCE)


def _in_steps(corpus: Corpus, oldest: int, change: Callable[[Connection, str, int, int], int], limit: int) -> int:
    total = 0
    while True:
        with corpus.database.transaction() as connection:
            found = change(connection, corpus.generation, oldest, limit)
        total += found
        if found < limit:
            return total
