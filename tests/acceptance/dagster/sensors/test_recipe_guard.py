"""A changed setting beside sensors, runs and the command line: nothing is embedded again without a confirmation."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from tests.support.dagster.cli import Cli, environment_of
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("recipe-guard")

SIZE = "INGEST_CHUNK_SIZE"


def set_chunk_size(dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setenv(SIZE, str(size))
    dagster.settings = type(dagster.settings).from_environment()


def reason(result: object) -> str:
    assert isinstance(result, dg.SkipReason), result
    return str(result.skip_message)


def test_a_changed_setting_waits_for_a_confirmation_and_changed_files_are_ingested(
    dagster: DagsterWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
) -> None:
    for number in range(12):
        dagster.put(f"{number:02}.txt", paragraphs(f"topic{number}", 1))
    assert dagster.run().success
    embedded = embeddings.embedded
    set_chunk_size(dagster, monkeypatch, 400)
    said = reason(dagster.tick("docs_source_sensor"))
    assert "INGEST_CHUNK_SIZE (chunk_size) from 1000 to 400" in said
    assert "confirm_recipe" in said
    dagster.put("new.txt", "A new file.")
    (run,) = dagster.follow()
    assert run.success
    refused = dagster.run()
    assert not refused.success
    assert embeddings.embedded == embedded + 1
    assert dagster.materialized(METADATA) >= {"new.txt"}
    cli = Cli(tmp_path, environment_of(tmp_path, database_url, embeddings) | {SIZE: "400"})
    assert "12 of 13 documents" in cli.run("plan").stderr
    assert cli.run("ingest").exit_code == 2
    assert embeddings.embedded == embedded + 1
    done = cli.run("ingest", "--confirm-recipe")
    assert done.exit_code == 0, done.stderr
    assert embeddings.embedded > embedded + 1
    assert dagster.follow() == []
    # A machine with the settings of before: it neither buys nor publishes, and says what differs.
    embedded = embeddings.embedded
    set_chunk_size(dagster, monkeypatch, 1000)
    said = reason(dagster.tick("docs_source_sensor"))
    assert "go back to an earlier recipe" in said
    assert "from 400 to 1000" in said
    assert embeddings.embedded == embedded
    assert dagster.run(confirm_recipe=True).success
    assert dagster.follow() == []
