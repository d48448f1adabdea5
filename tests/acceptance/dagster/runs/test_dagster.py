"""The step inside Dagster: what is materialized, when, and what a run says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import dagster as dg
import psycopg
import pytest
from dagster._core.instance.config import PoolGranularity

from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.cli import _session
from ingest_pipeline.lance.table import LanceTable
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.servers.embedding_server import POISON, EmbeddingServer, Fault
from tests.support.world import paragraphs


def test_a_run_without_partitions_materializes_what_differs(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("b.txt", paragraphs("beta", 2))
    assert dagster.run().success
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        assert dagster.materialized(asset) == {"a.txt", "b.txt"}
    assert dagster.audit().violations == []


def test_a_partition_shows_its_metadata(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    assert dagster.run().success
    chunks, embeddings, metadata = (dagster.latest(asset, "a.txt") for asset in (CHUNKS, EMBEDDINGS, METADATA))
    assert chunks["chunks"] == embeddings["embedded"] == dagster.embeddings.embedded
    assert "alpha 0." in str(chunks["preview"])
    sizes = cast("dg.TableMetadataValue", chunks["chunk_sizes"]).records
    assert sum(cast("int", row.data["chunks"]) for row in sizes) == chunks["chunks"]
    assert embeddings["lance_version_after"] == metadata["head"] == 2
    assert embeddings["cached"] == 0


@pytest.mark.parametrize("scheme", ["file", "folder"])
def test_a_run_reports_what_it_published_without_reading_it_back(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    reads: list[str] = []
    with DagsterWorld.over(tmp_path, database_url, embeddings, monkeypatch, INGEST_PARTITION_BY=scheme) as dagster:
        dagster.put("f/a.txt", paragraphs("alpha", 4))
        for method in ("publication", "finish"):
            monkeypatch.setattr(RunReport, method, watched(getattr(RunReport, method), reads))
        assert dagster.run().success
        chunks = dagster.latest(CHUNKS, "f/a.txt" if scheme == "file" else "f/")
    assert reads == []
    assert all(f"alpha {number}." in str(chunks["preview"]) for number in range(3))
    assert "alpha 3." not in str(chunks["preview"])


def watched(report: Callable[..., object], reads: list[str]) -> Callable[..., object]:
    """Name the functions that read rows of documents while a report is made."""

    def reading(name: str) -> Callable[..., object]:
        def read(*_: object, **__: object) -> object:
            reads.append(name)
            raise AssertionError(name)

        return read

    def watching(*arguments: object) -> object:
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((LanceTable, "rows"), (documents, "chunks_at"), (documents, "documents_at")):
                patch.setattr(owner, name, reading(name))
            return report(*arguments)

    return watching


def test_one_partition_is_one_document(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.put("b.txt", paragraphs("beta", 1))
    dagster.instance.add_dynamic_partitions("docs_documents", ["b.txt"])
    assert dagster.run(partition="b.txt").success
    assert dagster.materialized(METADATA) == {"b.txt"}
    assert dagster.audit().documents == 1


@pytest.mark.promise("again")
def test_materializing_again_says_unchanged_and_does_nothing(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.run()
    before = dagster.audit().head_version, dagster.embeddings.requests
    assert dagster.run(partition="a.txt").success
    assert str(dagster.latest(CHUNKS, "a.txt")["status"]).startswith("unchanged")
    assert (dagster.audit().head_version, dagster.embeddings.requests) == before


@pytest.mark.promise("honest-reports")
def test_a_failed_attempt_leaves_no_materialization(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED, times=9)
    assert not dagster.run().success
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        assert dagster.materialized(asset) == set()


@pytest.mark.promise("honest-reports")
def test_a_bad_file_fails_the_run_with_a_list_and_the_others_are_materialized(dagster: DagsterWorld) -> None:
    dagster.put("good.txt", paragraphs("good", 1))
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    result = dagster.run()
    assert not result.success
    failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
    assert failure.user_failure_data is not None
    assert "bad.txt" in str(failure.user_failure_data.metadata["failed"].value)
    assert dagster.materialized(METADATA) == {"good.txt"}


def test_the_partition_of_a_removed_file_is_deleted(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.put("b.txt", paragraphs("beta", 1)).touch()
    dagster.run()
    (Path(dagster.settings.source) / "b.txt").unlink()
    assert dagster.run(partitions=["b.txt"]).success
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"a.txt"}
    assert dagster.audit().documents == 1


def test_an_unknown_partition_fails_with_a_message(dagster: DagsterWorld) -> None:
    dagster.instance.add_dynamic_partitions("docs_documents", ["ghost.txt"])
    result = dagster.run(partition="ghost.txt")
    assert not result.success


def test_the_source_sensor_requests_what_differs_until_it_is_done(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    first = dagster.tick("docs_source_sensor")
    assert isinstance(first, dg.SensorResult)
    assert [request.partition_key for request in first.run_requests or ()] == ["a.txt"]
    dagster.instance.add_dynamic_partitions("docs_documents", ["a.txt"])
    dagster.run(partition="a.txt")
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)

    path = dagster.put("a.txt", paragraphs("other", 1))
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SensorResult)
    dagster.run(partition="a.txt")
    path.write_text(paragraphs("alpha", 1))
    again = dagster.tick("docs_source_sensor")
    assert isinstance(again, dg.SensorResult), "a file changed back to earlier bytes is seen"


def test_many_files_share_one_run(dagster: DagsterWorld) -> None:
    for number in range(12):
        dagster.put(f"{number:02}.txt", paragraphs(f"file {number}", 1))
    result = dagster.tick("docs_source_sensor")
    assert isinstance(result, dg.SensorResult)
    (request,) = list(result.run_requests or ())
    assert request.partition_key is None
    assert len(request.run_config["ops"]["docs_ingest"]["config"]["partitions"]) == 12


def test_a_file_that_keeps_failing_is_skipped_until_it_changes(dagster: DagsterWorld, database_url: str) -> None:
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    for _ in range(3):
        dagster.run()
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE ingest_pipeline.failure SET failed_at = now() - interval '1 day'")
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    dagster.put("bad.txt", "Now it has text.")
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SensorResult)


def test_the_recovery_sensor_finds_nothing_to_do(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.run()
    assert dagster.tick("docs_recovery_sensor") == dg.SkipReason("No saga is in doubt.")


def test_the_checks_fail_and_then_pass(dagster: DagsterWorld, database_url: str) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    for _ in range(3):
        dagster.run()
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE ordinal = 1")
    assert dagster.failed_checks() >= {"audit", "chunks_match", "quarantine"}
    with _session.context(dagster.settings) as context:
        asyncio.run(dagster.repair(context))
    (Path(dagster.settings.source) / "bad.txt").write_text("Text at last.")
    assert dagster.run().success
    assert dagster.failed_checks() == set()


@pytest.mark.promise("shown-in-dagster")
def test_what_a_run_published_before_it_died_is_reported_by_the_recovery_sensor(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))

    def die(*_: object) -> None:
        raise dg.Failure("the process ends here", allow_retries=False)

    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.assets.run_report.RunReport._log", die)
        assert not dagster.run().success
    assert dagster.audit().documents == 1
    assert dagster.materialized(METADATA) == set()
    reason = dagster.tick("docs_recovery_sensor")
    assert isinstance(reason, dg.SkipReason)
    assert "reported 1 publication." in str(reason.skip_message)
    for asset in (CHUNKS, EMBEDDINGS, METADATA):
        assert dagster.materialized(asset) == {"a.txt"}
    assert dagster.tick("docs_recovery_sensor") == dg.SkipReason("No saga is in doubt.")


def test_the_maintenance_job_removes_orphan_files(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    dagster.run()
    with _session.corpus(dagster.settings) as corpus, corpus.database.transaction() as connection:
        saga = sagas.begin(connection, generation="docs", kind=SagaKind.INGEST, base_version=1)
        sagas.mark_failed(connection, saga, "for the test")
        connection.execute(
            "UPDATE ingest_pipeline.saga SET ended_at = now() - interval '2 days' WHERE id = %s", (saga,)
        )
        orphans = Path(corpus.table.uri) / "data" / f"{saga}-0.lance"
    orphans.write_bytes(b"abandoned")
    assert [violation.invariant for violation in dagster.audit().violations] == ["no orphan files"]
    job = dagster.definitions.resolve_job_def("docs_maintenance_job")
    result = job.execute_in_process(instance=dagster.instance)
    assert result.success
    [shown] = [event.step_output_data.metadata for event in result.all_events if event.is_successful_output]
    assert (shown["fragments_after"].value, shown["swept_files"].value, shown["rows_unindexed"].value) == (1, 1, 2)
    assert not orphans.exists()
    assert dagster.audit().violations == []


def test_the_written_dagster_yaml_bounds_the_runs_that_use_the_embedding_api(dagster: DagsterWorld) -> None:
    pools = dagster.instance.get_concurrency_config().pool_config
    assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.RUN, 2)
    # The same file makes the engine's log records events of the run.
    assert dagster.instance.managed_python_loggers == ["ingest_pipeline"]
    (step,) = set(dagster.definitions.get_repository_def().assets_defs_by_key.values())
    assert step.op.pool == "embedding_api"


def test_an_empty_file_is_materialized_without_chunks(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    dagster.put("b.txt", "\n")
    assert dagster.run().success
    dagster.put("a.txt", "")
    assert dagster.run(partition="a.txt").success
    for key in ("a.txt", "b.txt"):
        assert dagster.latest(CHUNKS, key)["chunks"] == 0
    assert len(set(dagster.data_versions("a.txt"))) == 2
    assert (dagster.audit().documents, dagster.audit().chunks) == (2, 0)
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert dagster.failed_checks() == set()
