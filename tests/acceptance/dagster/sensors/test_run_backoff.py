"""Runs that fail as a whole: sensors wait longer each time, stop in the end, and say so wherever one looks."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.assets import ingest_run
from ingest_pipeline.cli import _session
from ingest_pipeline.ingestion import groups, run
from ingest_pipeline.ingestion.run import IngestRun
from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from tests.support.dagster.cli import Cli, environment_of
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.world import paragraphs


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    return Cli(tmp_path, environment_of(tmp_path, database_url, embeddings))


def reason(result: object) -> str:
    assert isinstance(result, dg.SkipReason), result
    return str(result.skip_message)


def let_pass(dagster: DagsterWorld, delays: int) -> None:
    """Let as much time pass as sensors wait after a first failure, so many times."""
    with dagster.connection() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.run_failure SET failed_at = failed_at - make_interval(hours => %s)", (delays,)
        )


@pytest.mark.promise("wrong-settings")
def test_a_wrong_key_is_tried_five_times_and_then_only_after_a_change(
    dagster: DagsterWorld, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED, times=99)
    for attempt in (1, 2):
        (failed,) = dagster.follow()
        assert not failed.success
        said = reason(dagster.tick("docs_source_sensor"))
        assert f"last {'run' if attempt == 1 else '2 runs'} failed as a whole" in said
        assert "refused the key" in said
        let_pass(dagster, attempt - 1)
        assert "next run is requested at" in reason(dagster.tick("docs_source_sensor"))
        let_pass(dagster, 1)
    with dagster.connection() as connection:
        connection.execute("UPDATE ingest_pipeline.run_failure SET attempts = 4")
    let_pass(dagster, 8)
    assert [each.success for each in dagster.follow()] == [False]
    requests = dagster.embeddings.requests
    let_pass(dagster, 10_000)
    assert "after the settings change" in reason(dagster.tick("docs_source_sensor"))
    assert dagster.embeddings.requests == requests
    backoff = cli.json("status")["run_backoff"]
    assert (backoff["attempts"], backoff["next_at"]) == (5, None)
    assert "refused the key" in cli.run("status").output
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SensorResult), "another key is tried at once"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert cli.run("retry").exit_code == 0
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SensorResult), "`retry` lets the next run go"
    assert cli.json("status")["run_backoff"] is None


@pytest.mark.promise("wrong-settings")
def test_a_wrong_width_costs_one_text_a_run_and_the_runs_end(dagster: DagsterWorld, cli: Cli) -> None:
    for number in range(9):
        dagster.put(f"{number}.txt", paragraphs(f"topic{number}", 5))
    dagster.embeddings.fail_next(Fault.WRONG_WIDTH, times=99)
    runs = 0
    for _ in range(6):
        runs += len(dagster.follow())
        let_pass(dagster, 60)
        with dagster.connection() as connection:
            connection.execute("UPDATE ingest_pipeline.run_failure SET attempts = attempts + 1 WHERE attempts = 2")
    assert runs == dagster.embeddings.embedded == 4
    status = cli.json("status")
    assert status["tokens"] == status["unusable_tokens"] == dagster.embeddings.tokens
    assert "dimensions instead of" in status["run_backoff"]["note"]


def test_a_run_that_publishes_resets_the_backoff_and_ingest_is_not_delayed(dagster: DagsterWorld, cli: Cli) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED)
    dagster.follow()
    assert cli.run("ingest").exit_code == 0
    dagster.put("b.txt", paragraphs("beta", 3))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED)
    dagster.follow()
    assert "last run failed" in reason(dagster.tick("docs_source_sensor"))
    let_pass(dagster, 1)
    assert [each.success for each in dagster.follow()] == [True]
    assert dagster.materialized(METADATA) == {"a.txt", "b.txt"}
    assert cli.json("status")["run_backoff"] is None


def test_a_token_limit_met_on_a_later_page_stops_the_sensor(
    dagster: DagsterWorld, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_PAGE_DOCUMENTS", 1)
    dagster.settings = dagster.settings.replace(max_tokens_per_run=2000)
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("b.txt", paragraphs("beta", 60))
    assert not dagster.run().success
    assert dagster.materialized(METADATA) == {"a.txt"}
    requests = dagster.embeddings.requests
    said = reason(dagster.tick("docs_source_sensor"))
    assert "stopped at a limit on tokens" in said
    assert "INGEST_MAX_TOKENS_PER_RUN" in said
    let_pass(dagster, 10_000)
    assert dagster.follow() == []
    assert dagster.embeddings.requests == requests
    assert cli.json("status")["run_backoff"]["next_at"] is None
    dagster.settings = dagster.settings.replace(max_tokens_per_run=0)
    assert [each.success for each in dagster.follow()] == [True]
    assert cli.json("status")["run_backoff"] is None


def test_a_run_that_published_one_group_before_it_failed_is_not_delayed(
    dagster: DagsterWorld, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_GROUP_DOCUMENTS", 1)
    dagster.put("a.txt", paragraphs("alpha", 3))
    assert dagster.run().success
    for key in ("b.txt", "c.txt"):
        dagster.put(key, paragraphs(key, 3))

    class Refused(IngestRun):
        def _report(self, publication: Publication) -> None:
            super()._report(publication)
            dagster.embeddings.fail_next(Fault.UNAUTHORIZED, times=9)

    monkeypatch.setattr(ingest_run, "IngestRun", Refused)
    assert not dagster.run().success
    assert cli.json("status")["run_backoff"] is None


@pytest.mark.promise("wrong-settings")
def test_runs_that_die_are_limited_too(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    with _session.context(dagster.settings, create=True) as context:
        corpus = context.corpus
        for deaths in range(1, 9):
            with corpus.database.transaction() as connection:
                sagas.begin(connection, generation=corpus.generation, kind=SagaKind.INGEST, base_version=1)
                sagas.abandon_live(connection, corpus.generation, "its writer is gone")
            waits = isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
            assert waits == (deaths > 2)
    said = reason(dagster.tick("docs_source_sensor"))
    assert "processes exited" in said
    assert "after the settings change" in said
