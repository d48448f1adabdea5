"""Looking at a corpus that is new binds it to nothing: only a publication does."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.support.dagster.cli import Cli
from tests.support.dagster.world import DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("binding")


def corpora(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM ingest_pipeline.generation").fetchone()
    assert row is not None
    return int(row[0])


def test_reports_on_a_new_corpus_create_nothing(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.put("a.txt", paragraphs("alpha", 2))
    for exact in ((), ("--exact",)):
        planned = cli.json("plan", *exact, INGEST_EMBEDDING_MODEL="mistyped", INGEST_EMBEDDING_DIMENSIONS="8")
        assert [row["change"] for row in planned["documents"]] == ["add"]
    for report in (["status"], ["search", "alpha"], ["audit"], ["history"]):
        refused = cli.run(*report)
        assert (refused.exit_code, "There is no corpus 'docs'" in refused.stderr) == (2, True)
    assert corpora(database_url) == 0
    assert not (tmp_path / "state" / "lancedb").exists()


def test_a_failed_first_ingest_does_not_bind_the_corpus(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.put("a.txt", paragraphs("alpha", 2))
    embeddings.fail_next(Fault.UNAUTHORIZED)
    (tmp_path / "mistyped").mkdir()
    (tmp_path / "mistyped" / "b.txt").write_text(paragraphs("beta", 1))
    assert cli.run("ingest", INGEST_SOURCE=str(tmp_path / "mistyped"), INGEST_PARTITION_BY="folder").exit_code == 2
    assert cli.run("ingest", INGEST_EMBEDDING_DIMENSIONS="17").exit_code == 1
    assert cli.json("ingest")["published"] == 1
    assert cli.json("status")["source"] == str(tmp_path / "source")
    assert cli.json("audit")["violations"] == []


def test_sensors_and_schedules_on_a_new_corpus_create_nothing(dagster: DagsterWorld, database_url: str) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SensorResult)
    assert dagster.tick("docs_recovery_sensor") == dg.SkipReason("There is no corpus docs yet.")
    assert dagster.tick("docs_batch_sensor") == dg.SkipReason("No batch job is open.")
    for name in ("docs_maintenance_job", "docs_audit_job"):
        job = dagster.definitions.resolve_job_def(name)
        assert job.execute_in_process(instance=dagster.instance).success
    assert corpora(database_url) == 0
    assert not Path(dagster.settings.lancedb_uri).exists()
