"""Runs that fail as a whole: sensors wait longer each time, stop in the end, and say so wherever one looks."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.postgres import sagas
from ingest_pipeline.postgres.sagas import SagaKind
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


def let_pass(dagster: DagsterWorld, minutes: int) -> None:
    with dagster.connection() as connection:
        connection.execute(
            "UPDATE ingest_pipeline.run_failure SET failed_at = failed_at - make_interval(mins => %s)", (minutes,)
        )


def test_a_wrong_key_is_tried_five_times_and_then_only_after_a_change(
    dagster: DagsterWorld, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED, times=99)
    for attempt in (1, 2):
        (run,) = dagster.follow()
        assert not run.success
        said = reason(dagster.tick("docs_source_sensor"))
        assert f"last {attempt} runs failed as a whole" in said
        assert "refused the key" in said
        let_pass(dagster, attempt - 1)
        assert "next run is requested at" in reason(dagster.tick("docs_source_sensor"))
        let_pass(dagster, 1)
    with dagster.connection() as connection:
        connection.execute("UPDATE ingest_pipeline.run_failure SET attempts = 4")
    let_pass(dagster, 8)
    assert [run.success for run in dagster.follow()] == [False]
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
    assert "last 1 runs" in reason(dagster.tick("docs_source_sensor"))
    let_pass(dagster, 1)
    assert [run.success for run in dagster.follow()] == [True]
    assert dagster.materialized(METADATA) == {"a.txt", "b.txt"}
    assert cli.json("status")["run_backoff"] is None


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
