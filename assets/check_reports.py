"""Asset checks that the ingest step evaluates for the documents of its own run.

Dagster skips checks that depend on an output which was not yielded, and the step yields none: it logs its
materializations partition by partition. So it logs the evaluations of the checks as well.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from ingest_pipeline.assets.check_results import (
    CHECKED,
    audit_results,
    freshness_result,
    on_hold_result,
    quarantine_result,
)
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import documents_of, documents_on_hold
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.planning.backoff import without_unreadable
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.failures import read_failures

# Checking more documents would take a run too much time and memory.
MAX_DOCUMENTS = 1000


def log_checks(
    context: dg.AssetExecutionContext,
    ingest_context: IngestContext,
    partitions: Sequence[str] | None,
    touched: Sequence[str],
) -> None:
    """Evaluate the checks of the corpus for the documents of a run that has published.

    Args:
        context: Dagster's context of the step.
        ingest_context: The open corpus with its source.
        partitions: The run's partitions. None: the whole corpus.
        touched: Keys of the documents that the run tried to publish. They are checked if the run has no partitions.
    """
    corpus = ingest_context.corpus.name
    try:
        keys = touched if partitions is None else documents_of(ingest_context, partitions)
        if len(keys) > MAX_DOCUMENTS:
            context.log.info(
                f"This run does not check its documents, because there are more than {MAX_DOCUMENTS}; the audit does"
            )
            return
        results = _results(ingest_context, partitions, keys)
    except IngestError as error:
        context.log.warning(f"The checks of this run could not be evaluated: {error}")
        return
    for name, result in results.items():
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey([corpus, CHECKED[name]]),
            check_name=name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
        )
        # Dagster's own code passes evaluations too, although the annotation does not name them.
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
        "on_hold": on_hold_result(documents_on_hold(ingest_context.corpus)),
    }
    if partitions is not None:  # otherwise the source would be listed twice
        differing = without_unreadable(ingest_context, Planner(ingest_context).plans(partitions))
        results["freshness"] = freshness_result(differing, datetime.now(UTC))
    return results
