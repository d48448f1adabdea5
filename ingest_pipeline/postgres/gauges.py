"""The figures of the catalog and the ledger for monitors: declared by name, and read by one statement for each group.

They describe all corpora of the database. The labels have few different values, and never keys of documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.sql import query

CORPUS = "corpus"
_PREFIX = "ingest_pipeline_corpus_"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as a monitor sees it. A counter only grows until its corpus is dropped."""

    name: str
    kind: Literal["gauge", "counter"]
    description: str
    labels: Sequence[str] = (CORPUS,)


@dataclass(frozen=True, slots=True)
class _Group:
    """The figures that one statement reads, each from a column of its own."""

    query: str
    figures: Mapping[str, Figure]


def _gauge(name: str, description: str, *labels: str) -> Figure:
    return Figure(_PREFIX + name, "gauge", description, (CORPUS, *labels))


def _counter(name: str, description: str, *labels: str) -> Figure:
    return Figure(f"{_PREFIX}{name}_total", "counter", description, (CORPUS, *labels))


_GROUPS = (
    _Group(
        "gauges_of_heads",
        {
            "head_version": _gauge("head_version", "Version of the table that readers see.", "generation"),
            "head_time": _gauge("head_timestamp_seconds", "Time of the publication that made head, since the epoch."),
            "documents": _gauge("documents", "Documents that readers see."),
            "chunks": _gauge("chunks", "Chunks that readers see."),
            "behind": _gauge(
                "behind_documents",
                "Documents that differed from the source at its last comparison, without those on hold or unreadable.",
            ),
            "lag": _gauge("lag_seconds", "Seconds since the oldest change in the source that readers do not see."),
            "compared_time": _gauge(
                "compared_timestamp_seconds", "Time of the last comparison of the whole source, since the epoch."
            ),
            "run_failures": _gauge("failed_runs", "Runs that failed as a whole since the last one that published."),
        },
    ),
    _Group(
        "gauges_of_documents",
        {
            "documents": _gauge(
                "held_back_documents",
                "Documents whose latest version readers do not see: failing, quarantined, unreadable, on_hold or "
                "in_batch_job.",
                "state",
            )
        },
    ),
    _Group(
        "gauges_of_sagas",
        {
            "sagas": _gauge(
                "active_sagas",
                "Sagas that have not ended: running, or in_doubt because their writers are silent.",
                "state",
            )
        },
    ),
    _Group(
        "gauges_of_ended_sagas",
        {"sagas": _counter("sagas", "Sagas that ended, by kind and state.", "kind", "state")},
    ),
    _Group(
        "gauges_of_usage",
        {
            "tokens": _counter("tokens", "Billed tokens of documents."),
            "enricher_tokens": _counter("enricher_tokens", "Tokens that enrichers of the user reported."),
            "requests": _counter("requests", "Requests to the embedding API, retries included."),
            "retries": _counter("retries", "Requests that were sent again after a temporary fault."),
        },
    ),
    _Group(
        "gauges_of_costs",
        {"amount": _counter("cost", "Cost of embedding and of enrichers, at the configured prices.", "currency")},
    ),
    _Group(
        "gauges_of_batch_jobs",
        {
            "jobs": _gauge("batch_jobs", "Open batch jobs: submitting or submitted.", "state"),
            "texts": _gauge("batch_texts", "Texts whose vectors open batch jobs have yet to bring.", "state"),
            "oldest": _gauge("batch_age_seconds", "Age of the oldest open batch job.", "state"),
        },
    ),
)


_RUNS = Figure(
    "ingest_pipeline_dagster_runs",
    "gauge",
    "Dagster runs that have not ended, by status. Absent if Dagster's tables are elsewhere or may not be read.",
    ("status",),
)


def figures() -> Sequence[Figure]:
    """All figures, in the order in which they are read."""
    return [*(figure for group in _GROUPS for figure in group.figures.values()), _RUNS]


def read_figures(
    connection: Connection, silence: float
) -> Iterator[tuple[Figure, Sequence[tuple[Sequence[str], float]]]]:
    """Each figure with its values by label values, in the order of its labels.

    Args:
        connection: Connection of the caller's transaction.
        silence: Seconds without a heartbeat after which a saga is in doubt.
    """
    for group in _GROUPS:
        rows: list[dict[str, Any]] = connection.execute(query(group.query), {"silence": silence}).fetchall()
        for column, figure in group.figures.items():
            values = [(tuple(str(row[label]) for label in figure.labels), row[column]) for row in rows]
            yield figure, [(labels, float(value)) for labels, value in values if value is not None]
    visible = connection.execute(query("are_runs_visible")).fetchone()
    if visible is not None and visible["found"]:
        runs: list[dict[str, Any]] = connection.execute(query("gauges_of_runs")).fetchall()
        yield _RUNS, [((str(row["status"]),), float(row["runs"])) for row in runs]
