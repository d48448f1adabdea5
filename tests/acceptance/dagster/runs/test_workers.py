"""A run whose documents several processes share: Dagster shows it like any other, and its limit is of the whole."""

from __future__ import annotations

import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.ingestion.workers import parts, pool
from ingest_pipeline.postgres.catalog import reports
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.world import paragraphs


@pytest.mark.promise("workers")
@pytest.mark.promise("limits")
def test_what_workers_publish_and_spend_adds_up_in_their_run(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (parts, pool):
        monkeypatch.setattr(module, "SMALLEST_PART", 20_000)
    for number in range(24):
        dagster.put(f"{number:02}.txt", paragraphs(f"topic{number}", 8))
    dagster.settings = dagster.settings.replace(max_tokens_per_run=24_000)
    dagster.embeddings.latency = 0.3
    run = dagster.run(workers=2)
    assert not run.success
    assert "This run was billed" in str(run.all_events)
    assert dagster.embeddings.tokens <= 24_000 + 7_000, "what one has in progress, the other cannot know of"
    with _session.corpus(dagster.settings) as corpus, corpus.database.transaction() as connection:
        progress = reports.run_progress(connection, run.run_id)
        writers = connection.execute("SELECT count(DISTINCT writer) AS n FROM ingest_pipeline.saga").fetchone()
    assert writers is not None
    assert writers["n"] > 1, "the run itself created the table, and ingested nothing"
    assert progress.tokens == dagster.embeddings.tokens
    assert 0 < progress.published < 24
    assert len(dagster.materialized(METADATA)) == progress.published
    dagster.settings = dagster.settings.replace(max_tokens_per_run=0)
    assert dagster.run().success
    assert len(dagster.materialized(METADATA)) == 24
    assert max(dagster.embeddings.texts.values()) == 1
    assert dagster.audit().violations == []
