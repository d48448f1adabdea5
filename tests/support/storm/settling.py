"""After the storm: wait until everything is settled without help, then check every promise."""

from __future__ import annotations

import time
from pathlib import Path

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import embedding_cache, failures, sagas
from ingest_pipeline.saga.recover import recover
from tests.support.storm.contents import fingerprint
from tests.support.storm.dagster import Dagster
from tests.support.storm.embeddings import judge_billing
from tests.support.storm.readers import Reading
from tests.support.storm.stage import Stage
from tests.support.storm.writers import Acknowledgements, Victims, ingest_once

TICK_SECONDS = 30


def settle(stage: Stage, dagster: Dagster, ticks: int) -> None:
    """Wait without intervention until nothing is open. Open matters after this many ticks are violations."""
    began = time.monotonic()
    still = ["everything"]
    with Database(stage.database_url) as database:
        context = open_context(database, stage.settings)
        while still and time.monotonic() < began + ticks * TICK_SECONDS:
            time.sleep(1)
            still = open_matters(context, stage, dagster)
    stage.figures.count("settled after seconds", round(time.monotonic() - began))
    for matter in still:
        stage.figures.violation(f"not settled after {ticks} ticks: {matter}")


def tend(stage: Stage, ticks: int) -> None:
    """Run the sensors' work, tick by tick, where no daemon runs, until nothing is open."""
    began, ticks_left = time.monotonic(), ticks
    still = ["everything"]
    with Database(stage.database_url) as database:
        context = open_context(database, stage.settings)
        while still and ticks_left > 0:
            ticks_left -= 1
            recover(context.corpus)
            ingest_once(stage, Victims(), [])
            still = open_matters(context, stage, None)
    stage.figures.count("settled after seconds", round(time.monotonic() - began))
    for matter in still:
        stage.figures.violation(f"not settled after {ticks} ticks: {matter}")


def open_matters(context: IngestContext, stage: Stage, dagster: Dagster | None) -> list[str]:
    """Everything that a user would still have to wait for."""
    corpus = context.corpus
    bad = {key for key, state in stage.contents.current().items() if state.bad}
    try:
        found = [f"{plan.key} differs from its source" for plan in Planner(context).plans() if plan.key not in bad]
        with corpus.database.transaction() as connection:
            found += [f"saga {saga.id} is {saga.state}" for saga in sagas.unfinished(connection, corpus.generation)]
        latest, head = corpus.table.latest_version(), corpus.head().head_version
        if latest != head:
            found.append(f"latest is {latest}, head is {head}")
        if dagster is not None:
            found += [f"run {run}" for run in dagster.runs_under_way()]
            found += [f"{n} backfills {s}" for s, n in dagster.backfills().items() if s in {"REQUESTED", "CANCELING"}]
    except (IngestError, OSError) as error:
        return [f"the stores cannot be read: {error}"]
    return found


def judge(stage: Stage, acknowledged: Acknowledgements, dagster: Dagster | None) -> None:
    """Check every promise against the actual state."""
    with stage.corpus() as corpus:
        swept = sweep(corpus)
        stage.figures.count("swept at the end: files", len(swept.files))
        stage.figures.count("swept at the end: versions", len(swept.versions))
        _judge_audit(stage, corpus)
        _judge_orphans(stage, corpus)
        _judge_contents(stage, corpus)
        _count_ledger(stage, corpus, acknowledged)
        if dagster is not None:
            _compare_with_dagster(stage, corpus, dagster)
    judge_billing(stage.embeddings.billed, stage.contents, stage.disruptions, stage.figures)


def _judge_audit(stage: Stage, corpus: Corpus) -> None:
    for violation in audit(corpus).violations:
        stage.figures.violation(f"audit: {violation}")


def _judge_orphans(stage: Stage, corpus: Corpus) -> None:
    again = sweep(corpus)
    if again.files or again.versions or again.rows:
        stage.figures.violation(f"a second sweep found {again}")
    folder = Path(corpus.table.uri)
    if stage.s3 is None:
        present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        # Vectors that are recorded and not published are kept for a week.
        with corpus.database.transaction() as connection:
            kept = {spool_name(*batch) for batch in embedding_cache.spooled_batches(connection, corpus.generation)}
        if lost := kept - present:
            stage.figures.violation(f"recorded vectors without a file: {sorted(lost)[:10]}")
        left = present - corpus.table.tracked_files() - kept - {"_versions/latest_version_hint.json"}
        if left:
            stage.figures.violation(f"orphan files: {sorted(left)[:10]}")


def _judge_contents(stage: Stage, corpus: Corpus) -> None:
    reading = Reading.at(corpus, corpus.head().head_version)
    for fault in reading.faults(stage.contents):
        stage.figures.violation(f"at the end: {fault}")
    for key, state in stage.contents.current().items():
        if not state.bad and fingerprint(reading.text(key)) != fingerprint(state.text):
            stage.figures.violation(f"at the end {key} differs from its file")
    stage.figures.count("at the end: documents", len(reading.documents))
    stage.figures.count("at the end: chunks", sum(map(len, reading.rows.values())))


def _count_ledger(stage: Stage, corpus: Corpus, acknowledged: Acknowledgements) -> None:
    with corpus.database.transaction() as connection:
        rows = connection.execute("SELECT state::text, count(*) AS n FROM ingest_pipeline.saga GROUP BY state")
        for row in rows:
            stage.figures.count(f"sagas: {row['state']}", row["n"])
        restores = connection.execute(
            "SELECT count(*) AS n FROM ingest_pipeline.saga WHERE kind = 'restore'"
        ).fetchone()
        stage.figures.count("sagas: restores of head among the published", restores["n"] if restores else 0)
        acknowledged.check(connection, corpus.generation)
        for failure in failures.read_failures(connection, corpus.generation):
            state = stage.contents.current().get(failure.key)
            if state is not None and not state.bad:
                what = "gone" if state.text is None else "good"
                stage.figures.violation(
                    f"the file of {failure.key} is {what}, but its failure is still recorded: {failure.error}"
                )


def _compare_with_dagster(stage: Stage, corpus: Corpus, dagster: Dagster) -> None:
    for status, number in dagster.runs().items():
        stage.figures.count(f"Dagster runs: {status}", number)
    for status, number in dagster.backfills().items():
        stage.figures.count(f"Dagster backfills: {status}", number)
    with corpus.database.transaction() as connection:
        rows = connection.execute(
            "SELECT d.key FROM ingest_pipeline.current_document d JOIN ingest_pipeline.saga s ON s.id = d.saga "
            "WHERE s.run_id IS NOT NULL"
        )
        keys = {row["key"] for row in rows}
    unseen = sorted(keys - dagster.materialized())
    stage.figures.count("at the end: documents of a run that Dagster does not show as materialized", len(unseen))
    if unseen:
        stage.figures.note(f"runs published {unseen}, and Dagster does not show them as materialized")
