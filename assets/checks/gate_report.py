"""The check `gate`: whether a publication waits because it did not pass its gates, and what the gates found last.

Figures are numbers of the check's metadata under fixed names, so that Dagster plots their history.
"""

from collections.abc import Sequence

import dagster as dg

from ingest_pipeline.assets.checks.check_results import CHECKED, MAX_ROWS
from ingest_pipeline.assets.tables import table
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.gates.judge import Judgement
from ingest_pipeline.ingestion.gate_decisions import Waiting, waiting
from ingest_pipeline.reporting.event_log import log_check
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import Finding

GATE = "gate"


def gate_spec(names: DagsterNames) -> dg.AssetCheckSpec:
    """The spec of the check. It blocks what depends on the corpus in the same run."""
    return dg.AssetCheckSpec(
        GATE,
        asset=names.key(CHECKED[GATE]),
        description="Each prepared publication passed its gates. One that did not is kept, and readers do not see it.",
        blocking=True,
    )


def log_gate(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    names: DagsterNames,
    corpus: Corpus,
    judgements: Sequence[Judgement] = (),
) -> None:
    """Evaluate the check.

    Args:
        context: Dagster's context of the step.
        names: Names of the corpus in Dagster.
        corpus: The corpus.
        judgements: What the run judged. Figures of what did not pass are shown first.
    """
    evaluation = gate_evaluation(names, waiting(corpus), judgements)
    log_check(
        context.instance, context.run, context.op_execution_context.get_step_execution_context().step.key, evaluation
    )


def gate_evaluation(
    names: DagsterNames, found: Sequence[Waiting], judgements: Sequence[Judgement] = ()
) -> dg.AssetCheckEvaluation:
    """The evaluation of the check, with what waits and what was judged."""
    last = sorted(judgements, key=lambda one: one.passed, reverse=True)[-1:]
    findings = last[0].findings if last else found[-1].findings if found else ()
    rows = [
        {
            "publication": str(one.id),
            "figure": finding.figure,
            "value": f"{finding.value:.4g}",
            "limit": "" if finding.limit is None else f"{finding.limit:g}",
            "ids": ", ".join(finding.ids),
        }
        for one in found
        for finding in one.findings
        if not finding.passed
    ]
    columns: dict[str, str] = dict.fromkeys(("publication", "figure", "value", "limit", "ids"), "string")
    return dg.AssetCheckEvaluation(
        asset_key=names.key(CHECKED[GATE]),
        check_name=GATE,
        passed=not found,
        blocking=True,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "blocked": dg.MetadataValue.int(len(found)),
            "documents": dg.MetadataValue.int(sum(one.documents + one.removed for one in found)),
            **_figures(findings),
            **({"found": table(columns, rows[:MAX_ROWS])} if rows else {}),
        },
    )


def _figures(findings: Sequence[Finding]) -> dict[str, dg.MetadataValue[float | None]]:
    """Each figure under its name, and its limit."""
    figures = {finding.figure: finding.value for finding in findings}
    limits = {f"{finding.figure}_limit": finding.limit for finding in findings if finding.limit is not None}
    return {name: dg.MetadataValue.float(round(float(value), 4)) for name, value in {**figures, **limits}.items()}
