"""Letting old versions go: those that no reader, no rollback and no running saga may still want.

A version is kept while it is head or ceased to be head a few days ago, while it is among the last publications, while a
live saga was planned on it or rolls back to it, and while it has a tag. What is older than the oldest such version goes
in steps that a death may interrupt anywhere: the ledger says that the versions are retired, their catalog rows go in
small transactions without the lock, then the versions with the files that only they hold. The next time does the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres import catalog, ledger
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.saga.reconcile import lock
from ingest_pipeline.types import Retention

log = logging.getLogger(__name__)

_DOCUMENTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What was let go."""

    oldest_version: int
    """That is kept."""
    versions: int
    documents: int
    """Catalog rows of documents as they were in those versions only; their chunks' rows went with them."""


def retain(corpus: Corpus, retention: Retention) -> RetentionReport:
    """Remove what is older than the retention says, in both stores. Readers at versions that are kept notice nothing.

    Raises:
        UnavailableError: One of the stores failed; the next call goes on.
    """
    tagged = corpus.table.tagged_versions()
    with corpus.database.transaction() as connection:
        # Under the lock, so that no saga is planned on a version while it is taken for unneeded.
        lock(connection, corpus)
        with boundary(Boundary.RETIRED):
            oldest = ledger.retire_versions(
                connection,
                corpus.generation,
                days=retention.days,
                publications=retention.publications,
                at_least=min(tagged, default=None),
            )
    documents = _forget_documents(corpus, oldest)
    gone = [version for version in corpus.table.versions() if version < oldest]
    if gone:
        corpus.table.remove_versions(gone)
        log.info("corpus %s: %d versions before %d are gone", corpus.generation, len(gone), oldest)
    return RetentionReport(oldest, len(gone), documents)


def _forget_documents(corpus: Corpus, oldest: int) -> int:
    return sum(_in_steps(corpus, oldest, forget) for forget in (catalog.forget_superseded, catalog.forget_tombstones))


def _in_steps(corpus: Corpus, oldest: int, forget: Callable[[Connection, str, int, int], int]) -> int:
    total = 0
    while True:
        with corpus.database.transaction() as connection:
            found = forget(connection, corpus.generation, oldest, _DOCUMENTS_AT_ONCE)
        total += found
        if found < _DOCUMENTS_AT_ONCE:
            return total
