"""Asset checks that the ingest step evaluates for the documents of its own run.

They have names of their own, so that a run over a few documents does not hide what a check of the whole corpus found.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from ingest_pipeline.assets.checks.check_results import (
    CHECKED,
    audit_results,
    freshness_result,
    on_hold_result,
    quarantine_result,
)
from ingest_pipeline.assets.checks.gate_report import gate_spec, log_gate
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import documents_of, documents_on_hold
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.planning.backoff import without_unreadable
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.failures import read_failures
from ingest_pipeline.resources.names import DagsterNames

_RUN_CHECKS = {
    "run_audit": "LanceDB and Postgres agree in everything that an audit compares of the documents of the last run.",
    "run_freshness": "The partitions of the last run equal the source, except for changes of the last 15 minutes.",
}
# Checking more documents would take a run too much time and memory.
MAX_DOCUMENTS = 1000


def run_check_specs(names: DagsterNames, *, gated: bool) -> list[dg.AssetCheckSpec]:
    """The specs of the checks of a run. Only a corpus with gates has the check of gates."""
    return [
        *(
            dg.AssetCheckSpec(name, asset=names.key(CHECKED[name]), description=description)
            for name, description in _RUN_CHECKS.items()
        ),
        *([gate_spec(names)] if gated else []),
    ]


def log_checks_of_last_change(
    context: dg.AssetExecutionContext, names: DagsterNames, ingest_context: IngestContext
) -> None:
    """Evaluate the checks of a run for the documents of the last publication, in a run that selects checks alone."""
    corpus = ingest_context.corpus
    with corpus.database.transaction() as connection:
        change = sagas.last_change(connection, corpus.generation)
        changes = [] if change is None else reports.latest_changes(connection, change.id)
    log_checks(context, names, ingest_context, sorted({one.partition for one in changes}), [])
    if ingest_context.gates is not None:
        log_gate(context, names, corpus)


def log_checks(
    context: dg.AssetExecutionContext,
    names: DagsterNames,
    ingest_context: IngestContext,
    partitions: Sequence[str] | None,
    touched: Sequence[str],
) -> None:
    """Evaluate the checks of a run for its documents.

    Args:
        context: Dagster's context of the step.
        names: Names of the corpus in Dagster.
        ingest_context: The open corpus with its source.
        partitions: The run's partitions. None: the whole corpus.
        touched: Keys of the documents that the run tried to publish. They are checked if the run has no partitions.
    """
    try:
        keys = touched if partitions is None else documents_of(ingest_context, partitions)
        if len(keys) > MAX_DOCUMENTS:
            context.log.info(
                f"This run does not check its documents, because there are more than {MAX_DOCUMENTS}; the audit does"
            )
            return
        results = dict(_run_results(ingest_context, partitions, keys))
        # Other runs may have selected the checks of the whole corpus, which then have steps of their own.
        if context.run.job_name in names.jobs:
            results |= _corpus_results(ingest_context)
    except IngestError as error:
        context.log.warning(f"The checks of this run could not be evaluated: {error}")
        return
    for name, result in results.items():
        evaluation = dg.AssetCheckEvaluation(
            asset_key=names.key(CHECKED[name]),
            check_name=name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
        )
        # Dagster's own code passes evaluations too, although the annotation does not name them.
        context.log_event(evaluation)  # pyright: ignore[reportArgumentType]


def _run_results(
    ingest_context: IngestContext, partitions: Sequence[str] | None, keys: Sequence[str]
) -> Mapping[str, dg.AssetCheckResult]:
    report = audit(ingest_context.corpus, keys)
    results = {"run_audit": audit_results(report, ingest_context.recipe.embedding_dimensions)["audit"]}
    if partitions is not None:  # otherwise the source would be listed twice
        differing = without_unreadable(ingest_context, Planner(ingest_context).plans(partitions))
        results["run_freshness"] = freshness_result(differing, datetime.now(UTC))
    return results


def _corpus_results(ingest_context: IngestContext) -> Mapping[str, dg.AssetCheckResult]:
    with ingest_context.corpus.database.transaction() as connection:
        failures = read_failures(connection, ingest_context.corpus.generation)
    return {
        "quarantine": quarantine_result(failures),
        "on_hold": on_hold_result(documents_on_hold(ingest_context.corpus)),
    }
