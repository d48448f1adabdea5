"""The retry backoff of documents that failed: when they are tried again, and which are no longer tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Page
from ingest_pipeline.postgres.catalog.gates import drop
from ingest_pipeline.postgres.catalog.holds import release_known
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger.failures import Failure, clear_failures, read_failures
from ingest_pipeline.postgres.ledger.sagas import clock

_FIRST_DELAY = timedelta(seconds=30)


class RetryBackoff:
    """The documents of a corpus that must not be tried now.

    Args:
        failures: Failures with the recipe in force, by key.
        now: The current time.
    """

    def __init__(self, failures: Mapping[str, Failure], now: datetime) -> None:
        self._failures = {key: failure for key, failure in failures.items() if _is_early(failure, now)}

    def failure_of(self, plan: DocumentPlan) -> Failure | None:
        """The earlier failure of the same bytes, if they must not be tried now; otherwise None."""
        failure = self._failures.get(plan.key)
        if failure is None or plan.source is None or plan.source.document_etag != failure.etag:
            return None
        return failure


def read_retry_backoff(context: IngestContext) -> RetryBackoff:
    """Read the backoff: 30 seconds after the first failure, 60 after the second, no retry after the third.

    There is no retry after the first failure if another attempt at the same bytes would fail in the same way.
    """
    with context.corpus.database.transaction() as connection:
        failures = read_failures(connection, context.corpus.generation)
        now = clock(connection)
    current = {one.key: one for one in failures if one.recipe == context.recipe.fingerprint_of(one.key)}
    return RetryBackoff(current, now)


def has_due_retries(context: IngestContext) -> bool:
    """Whether a document that failed is to be tried again now."""
    with context.corpus.database.transaction() as connection:
        failures = read_failures(connection, context.corpus.generation)
        now = clock(connection)
    return any(one.recipe == context.recipe.fingerprint_of(one.key) and not _is_early(one, now) for one in failures)


def without_final(context: IngestContext, plans: Sequence[DocumentPlan]) -> tuple[list[DocumentPlan], list[Failure]]:
    """Separate the documents that a run over everything skips, because their bytes are no longer tried.

    Returns:
        The plans to try, and the failures of the others.
    """
    backoff = read_retry_backoff(context)
    found = {plan.key: failure for plan in plans if (failure := backoff.failure_of(plan)) and failure.is_final}
    return [plan for plan in plans if plan.key not in found], list(found.values())


def without_unreadable(context: IngestContext, plans: Sequence[DocumentPlan]) -> list[DocumentPlan]:
    """Drop documents that cannot be read and that readers do not see. They differ until their files change."""
    backoff = read_retry_backoff(context)
    unreadable = {
        plan.key
        for plan in plans
        if (failure := backoff.failure_of(plan)) and failure.unreadable and failure.published_version is None
    }
    return [plan for plan in plans if plan.key not in unreadable]


def clear_resolved(context: IngestContext, page: Page) -> None:
    """Delete failures, holds and blocked publications of documents that no longer differ.

    Args:
        context: The open corpus with its source.
        page: The comparison. Only keys in its range are considered.
    """
    corpus = context.corpus
    with corpus.database.transaction() as connection:
        failed = [failure.key for failure in read_failures(connection, corpus.generation)]
        clear_failures(connection, corpus.generation, page.unchanged(failed))
        # Only holds that the page knew: a rollback since then has put other documents on hold, which differ now.
        release_known(connection, corpus.generation, [page.holds[key] for key in page.unchanged(page.holds)])
        if page.blocks:
            _drop_resolved(connection, page)


def _drop_resolved(connection: Connection, page: Page) -> None:
    """End the blocked publications whose documents no longer differ from head in the source."""
    unchanged = set(page.unchanged(page.blocks))
    pending = {block.saga for key, block in page.blocks.items() if key not in unchanged}
    for saga in {block.saga for block in page.blocks.values()} - pending:
        drop(connection, saga, "the source has what is at head")


def _is_early(failure: Failure, now: datetime) -> bool:
    return failure.is_final or failure.failed_at + _FIRST_DELAY * 2 ** (failure.attempts - 1) > now
