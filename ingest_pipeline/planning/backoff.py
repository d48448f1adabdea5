"""Documents that failed: which wait for their next attempt, and which have had their last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.failures import Failure, read_failures
from ingest_pipeline.postgres.ledger import clock

_BACKOFF = timedelta(seconds=30)


class Waiting:
    """The documents of a corpus that nobody should try now.

    Args:
        failures: With the recipe in force.
        now: The time.
    """

    def __init__(self, failures: Mapping[str, Failure], now: datetime) -> None:
        self._failures = {key: failure for key, failure in failures.items() if _is_early(failure, now)}

    def failure_of(self, plan: DocumentPlan) -> Failure | None:
        """The failure of the very bytes that are planned, if they should not be tried now."""
        failure = self._failures.get(plan.key)
        if failure is None or plan.source is None or plan.source.etag != failure.etag:
            return None
        return failure


def waiting_documents(context: IngestContext) -> Waiting:
    """What waits at this moment: 30 seconds after the first failure, 60 after the second, for good after the third.

    For good after the first, if no other attempt at the same bytes would end otherwise.
    """
    with context.corpus.database.transaction() as connection:
        failures = read_failures(connection, context.corpus.generation)
        now = clock(connection)
    recipe = context.recipe.fingerprint
    return Waiting({failure.key: failure for failure in failures if failure.recipe == recipe}, now)


def without_final(context: IngestContext, plans: Sequence[DocumentPlan]) -> tuple[list[DocumentPlan], list[Failure]]:
    """Set apart what a run over everything leaves alone: bytes and recipe of which the last attempt was made.

    Returns:
        What is to be tried, and the failures of the rest.
    """
    waiting = waiting_documents(context)
    found = {plan.key: failure for plan in plans if (failure := waiting.failure_of(plan)) and failure.is_final}
    return [plan for plan in plans if plan.key not in found], list(found.values())


def without_unreadable(context: IngestContext, plans: Sequence[DocumentPlan]) -> list[DocumentPlan]:
    """Leave out documents that cannot be read and of which readers see nothing: these differ until they change."""
    waiting = waiting_documents(context)
    left = {
        plan.key
        for plan in plans
        if (failure := waiting.failure_of(plan)) and failure.unreadable and failure.published_version is None
    }
    return [plan for plan in plans if plan.key not in left]


def _is_early(failure: Failure, now: datetime) -> bool:
    return failure.is_final or failure.failed_at + _BACKOFF * 2 ** (failure.attempts - 1) > now
