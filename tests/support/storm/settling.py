"""After the storm: wait until everything is settled without help, then check every promise."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.erasure.unfinished import continue_erasures
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.lance.erasing import NOTES
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.maintenance.audit import audit
from ingest_pipeline.maintenance.sweep import sweep
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.ledger import embedding_cache, erasures, failures, sagas
from ingest_pipeline.saga.recover import recover
from tests.support.storm.contents import fingerprint
from tests.support.storm.dagster import Dagster
from tests.support.storm.embeddings import judge_billing
from tests.support.storm.ledger import Forgotten, erased_keys, states_of
from tests.support.storm.readers import Reading
from tests.support.storm.stage import Stage
from tests.support.storm.users.erasures import remains
from tests.support.storm.users.gates import decide_finally
from tests.support.storm.users.writers import Acknowledgements, Victims, ingest_once

TICK_SECONDS = 30
_ATTEMPTS = 5


def settle(stage: Stage, dagster: Dagster, ticks: int) -> None:
    """Wait without intervention until nothing is open. Open matters after this many ticks are violations.

    What is blocked stays so without a decision. It is decided when all else is settled, and the daemon may block the
    documents of what was dropped again.
    """
    with Database(stage.database_url) as database:
        context = open_context(database, stage.settings)
        _wait(context, stage, dagster, ticks)
        decided = decide_finally(stage, context.corpus)
        while decided:
            _wait(context, stage, dagster, ticks)
            decided = decide_finally(stage, context.corpus, only="release")


def find_unnoticed(stage: Stage) -> None:
    """Run over everything once, which finds the changes of lost notices before the hourly listing does."""
    for _ in range(_ATTEMPTS):
        if ingest_once(stage, Victims(), []) == 0:
            return
    stage.figures.violation(f"`ingest` failed {_ATTEMPTS} times in a row after the storm")


def _wait(context: IngestContext, stage: Stage, dagster: Dagster, ticks: int) -> None:
    began = time.monotonic()
    still = ["everything"]
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
        recover(context.corpus)
        decide_finally(stage, context.corpus)
        while still and ticks_left > 0:
            ticks_left -= 1
            recover(context.corpus)
            continue_erasures(context.corpus)
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
            begun = erasures.read(connection, corpus.name, unfinished=True)
            found += [f"erasure {erasure.id} is not finished" for erasure in begun]
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
        erased = _judge_erasures(stage, corpus)
        _judge_contents(stage, corpus, erased)
        _count_ledger(stage, corpus, acknowledged)
        if dagster is not None:
            _compare_with_dagster(stage, corpus, dagster)
        with corpus.database.transaction() as connection:
            forgotten = Forgotten.read(connection)
    judge_billing(stage.embeddings.billed, stage.contents, stage.disruptions, stage.figures, forgotten.has)


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
        notes = {name for name in present if name.startswith(f"{NOTES}/")}
        left = present - corpus.table.tracked_files() - kept - notes - {"_versions/latest_version_hint.json"}
        if left:
            stage.figures.violation(f"orphan files: {sorted(left)[:10]}")


def _judge_erasures(stage: Stage, corpus: Corpus) -> frozenset[str]:
    """Search for erased documents in everything; returns their keys."""
    with corpus.database.transaction() as connection:
        keys = erased_keys(connection, stage.contents.known(), datetime.now(UTC))
        rows = erasures.read(connection, corpus.name)
    for place in remains(stage, keys.finished):
        stage.figures.violation(f"text of {sorted(keys.finished)}, which were erased, is left in {place}")
    stage.figures.count("erasures: finished", sum(row.erased_at is not None for row in rows))
    stage.figures.count("erasures: receipts with something found", sum(bool(row.found) for row in rows))
    stage.figures.count("erasures: documents searched for at the end", len(keys.finished))
    return keys.finished


def _judge_contents(stage: Stage, corpus: Corpus, erased: Collection[str]) -> None:
    reading = Reading.at(corpus, corpus.head().head_version)
    with corpus.database.transaction() as connection:
        states = states_of(connection, reading.sagas())
    for fault in reading.forbidden(states, erased):
        stage.figures.violation(f"at the end: {fault}")
    for fault in reading.faults(stage.contents):
        stage.figures.violation(f"at the end: {fault}")
    for key, state in stage.contents.current().items():
        if not state.bad and key not in erased and fingerprint(reading.text(key)) != fingerprint(state.text):
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
