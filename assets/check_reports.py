"""Checks that the ingest step makes of its own run.

Dagster skips what depends on an output that was not yielded, and the step yields none: it logs its materializations
partition by partition. So it logs what the checks say as well, and they are told with every materialization.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from ingest_pipeline.assets.check_results import (
    CHECKED,
    audit_results,
    freshness_result,
    held_result,
    quarantine_result,
)
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import documents_of, held_documents, plan_partitions
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.planning.backoff import without_unreadable
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.failures import read_failures

# Of more documents than this a check takes longer, and holds more in memory, than a run should lend it.
MOST_DOCUMENTS = 1000


def log_checks(
    context: dg.AssetExecutionContext,
    ingest_context: IngestContext,
    partitions: Sequence[str] | None,
    touched: Sequence[str],
) -> None:
    """Say of the run's documents, after it published, what the checks of the corpus say of them.

    Args:
        context: Of the step.
        ingest_context: Of the corpus.
        partitions: That the run was asked for. None: the corpus.
        touched: Keys of the documents that it did something about: looked at if it was not asked for partitions.
    """
    corpus = ingest_context.corpus.name
    try:
        keys = touched if partitions is None else documents_of(ingest_context, partitions)
        if len(keys) > MOST_DOCUMENTS:
            context.log.info(f"More than {MOST_DOCUMENTS} documents are left to the audit of the whole corpus")
            return
        results = _results(ingest_context, partitions, keys)
    except IngestError as error:
        context.log.warning(f"What was published could not be checked: {error}")
        return
    for name, result in results.items():
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey([corpus, CHECKED[name]]),
            check_name=name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
        )
        # Dagster's own code hands it evaluations, which the annotation of the method forgot.
        context.log_event(evaluation)  # pyright: ignore[reportArgumentType]


def _results(
    ingest_context: IngestContext, partitions: Sequence[str] | None, keys: Sequence[str]
) -> Mapping[str, dg.AssetCheckResult]:
    report = audit(ingest_context.corpus, keys)
    with ingest_context.corpus.database.transaction() as connection:
        failures = read_failures(connection, ingest_context.corpus.generation)
    results = {
        **audit_results(report, ingest_context.recipe.embedding_dimensions),
        "quarantine": quarantine_result(failures),
        "on_hold": held_result(held_documents(ingest_context.corpus)),
    }
    if partitions is not None:  # else it would list the source a second time
        differing = without_unreadable(ingest_context, plan_partitions(ingest_context, partitions))
        results["freshness"] = freshness_result(differing, datetime.now(UTC))
    return results
