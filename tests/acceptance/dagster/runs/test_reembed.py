"""Moving to another model as a user does it: the command line, and what Dagster's UI shows of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.crash.migrating import EMBEDDING, WIDTH
from tests.support.dagster.cli import Cli
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.servers.embedding_server import NARROWING_MODEL, EmbeddingServer
from tests.support.world import paragraphs

MOVED = {"INGEST_EMBEDDING_MODEL": NARROWING_MODEL, "INGEST_EMBEDDING_DIMENSIONS": str(WIDTH)}


def settle_on(dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Change settings, as in a deployment: the code location is loaded again."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    dagster.settings = CorpusConfig.from_environment()


def stale(dagster: DagsterWorld, partition: str) -> set[str]:
    """Which assets Dagster itself shows as stale in a partition."""
    graph = dagster.definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(dagster.instance, graph, LoadingContextForTest(dagster.instance))
    keys = (CHUNKS, EMBEDDINGS, METADATA)
    return {key.path[-1] for key in keys if resolver.get_status(key, partition) is StaleStatus.STALE}


def known_partitions(dagster: DagsterWorld) -> set[str]:
    """Which partitions of the corpus Dagster lists."""
    names = ("docs_documents", "docs_folders")
    return {partition for name in names for partition in dagster.instance.get_dynamic_partitions(name)}


def migrate(dagster: DagsterWorld, action: str = "SWITCH") -> dg.ExecuteInProcessResult:
    job = dagster.definitions.resolve_job_def("docs_reembed_job")
    return job.execute_in_process(
        run_config={"ops": {"docs_reembed": {"config": {"action": action}}}},
        instance=dagster.instance,
        raise_on_error=False,
    )


def test_another_chunk_size_makes_partitions_stale_and_ingesting_them_again_makes_them_fresh(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", "\n\n".join(f"Short paragraph {number} says little." for number in range(40)))
    assert dagster.run().success
    assert stale(dagster, "a.txt") == set()
    settle_on(dagster, monkeypatch, INGEST_CHUNK_SIZE="50")
    assert "chunks" in stale(dagster, "a.txt")
    assert dagster.run().success
    assert stale(dagster, "a.txt") == set()
    embedded = dagster.embeddings.embedded
    settle_on(dagster, monkeypatch, INGEST_CHUNK_SIZE="60")
    assert "chunks" in stale(dagster, "a.txt")
    assert dagster.run(partition="a.txt").success
    assert dagster.embeddings.embedded == embedded, "the paragraphs are cut as before, so their vectors are reused"
    assert stale(dagster, "a.txt") == set()


def test_another_model_makes_partitions_stale_until_readers_have_switched(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("b.txt", paragraphs("beta", 2))
    assert dagster.run().success
    settle_on(dagster, monkeypatch, **MOVED)
    assert "embeddings" in stale(dagster, "a.txt")

    dagster.put("a.txt", paragraphs("edited", 2))
    assert dagster.run().success, "documents are kept up to date with the model that the corpus has"
    assert "embeddings" in stale(dagster, "a.txt")

    assert migrate(dagster, "FILL").success
    assert "embeddings" in stale(dagster, "b.txt")
    assert migrate(dagster).success
    for partition in ("a.txt", "b.txt"):
        assert stale(dagster, partition) == set()
    assert dagster.latest(EMBEDDINGS, "a.txt")["status"] == f"readers moved to {EMBEDDING}"
    assert dagster.audit().violations == []
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)
    assert isinstance(dagster.tick("docs_recovery_sensor"), dg.SkipReason)
    assert dagster.run().success


def test_a_reembedded_corpus_is_kept_up_to_date_like_any_other(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        dagster.put(name, paragraphs(name, 1))
    assert dagster.run().success
    settle_on(dagster, monkeypatch, **MOVED)
    assert migrate(dagster).success

    dagster.put("d.txt", paragraphs("new", 1)).with_name("c.txt").unlink()
    done = dagster.run()
    assert done.success
    assert set(dagster.instance.get_dynamic_partitions("docs_documents")) == {"a.txt", "b.txt", "d.txt"}
    assert dagster.materialized(METADATA) >= {"a.txt", "b.txt", "d.txt"}
    checked = done.get_asset_check_evaluations()
    assert {evaluation.asset_key.path[0] for evaluation in checked} == {"docs"}


def test_shared_partitions_are_materialized_in_a_reembedded_corpus(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_on(dagster, monkeypatch, INGEST_PARTITION_BY="folder")
    dagster.put("x/a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    settle_on(dagster, monkeypatch, **MOVED)
    assert migrate(dagster).success
    dagster.put("y/b.txt", paragraphs("beta", 1))
    assert dagster.run().success
    assert dagster.materialized(METADATA) == {"x/", "y/"}
    assert dagster.run(partitions=["x/"]).success


def test_going_back_makes_partitions_fresh_for_the_first_model_again(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    assert dagster.run().success
    first = {"INGEST_EMBEDDING_MODEL": dagster.settings.embedding_model, "INGEST_EMBEDDING_DIMENSIONS": "32"}
    settle_on(dagster, monkeypatch, **MOVED)
    assert migrate(dagster).success
    settle_on(dagster, monkeypatch, **first)
    assert "embeddings" in stale(dagster, "a.txt")
    embedded = dagster.embeddings.embedded
    assert migrate(dagster).success
    assert stale(dagster, "a.txt") == set()
    assert dagster.embeddings.embedded == embedded
    assert migrate(dagster, "DROP").success
    assert not migrate(dagster, "ABORT").success


def test_a_run_that_died_after_the_switch_is_reported_by_the_recovery_sensor(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    assert dagster.run().success
    settle_on(dagster, monkeypatch, **MOVED)

    def die(*_: object) -> None:
        raise dg.Failure("the process ends here", allow_retries=False)

    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.orchestration.jobs.reembed._report_all", die)
        assert not migrate(dagster).success
    assert "embeddings" in stale(dagster, "a.txt")
    dagster.tick("docs_recovery_sensor")
    assert stale(dagster, "a.txt") == set()


@pytest.mark.parametrize(("scheme", "first", "second"), [("file", "a/1.txt", "b/1.txt"), ("folder", "a/", "b/")])
def test_events_after_a_reembedding_show_as_before(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    dagster.put("a/1.txt", paragraphs("alpha", 1))
    gone = dagster.put("b/1.txt", paragraphs("beta", 1))
    dagster.put("c/1.txt", paragraphs("gamma", 1))
    assert dagster.run().success
    settle_on(dagster, monkeypatch, **MOVED)
    assert migrate(dagster).success
    dagster.put("a/1.txt", paragraphs("edited", 2))
    assert [run.success for run in dagster.follow()] == [True]
    assert {first, second} <= known_partitions(dagster)
    assert dagster.latest(METADATA, first)["head"] == dagster.audit().head_version
    gone.unlink()
    assert dagster.run().success, "one of three is not so much that it has to be confirmed"
    assert first in known_partitions(dagster)
    assert second not in known_partitions(dagster)
    assert stale(dagster, first) == set()
    assert (dagster.audit().documents, dagster.audit().violations) == (2, [])


@pytest.mark.parametrize("scheme", ["folder", "bucket:1"])
def test_a_shared_partition_is_stale_until_readers_have_switched_even_if_the_run_died(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a/1.txt", paragraphs("alpha", 2))
    dagster.put("a/2.txt", paragraphs("beta", 1))
    assert dagster.run().success
    (partition,) = dagster.materialized(METADATA)
    first = {"INGEST_EMBEDDING_MODEL": dagster.settings.embedding_model, "INGEST_EMBEDDING_DIMENSIONS": "32"}
    settle_on(dagster, monkeypatch, **MOVED)
    assert migrate(dagster, "FILL").success
    assert "embeddings" in stale(dagster, partition)
    assert migrate(dagster).success
    assert stale(dagster, partition) == set()
    shown = dagster.latest(EMBEDDINGS, partition)
    assert (shown["status"], shown["documents"]) == (f"readers moved to {EMBEDDING}", 2)
    embedded = dagster.embeddings.embedded

    def die(*_: object) -> None:
        raise dg.Failure("the process ends here", allow_retries=False)

    settle_on(dagster, monkeypatch, **first)
    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.orchestration.jobs.reembed._report_all", die)
        assert not migrate(dagster).success
    assert "embeddings" in stale(dagster, partition)
    assert [run.success for run in dagster.follow("docs_recovery_sensor")] == [True]
    assert stale(dagster, partition) == set()
    assert dagster.embeddings.embedded == embedded
    assert dagster.audit().violations == []
    assert isinstance(dagster.tick("docs_source_sensor"), dg.SkipReason)


def test_the_command_shows_the_cost_and_asks(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.put("a.txt", paragraphs("alpha", 3))
    cli.json("ingest")
    assert cli.run("reembed", "--yes").exit_code == 2, "there is nothing to move to"
    embedded = embeddings.embedded
    cli.environment |= MOVED | {"INGEST_EMBEDDING_PRICES": f"{NARROWING_MODEL} 10 USD 2026-11-01"}
    plan: Any = cli.json("plan")
    assert (plan["documents"], plan["reembedding"]["documents"]) == ([], 1)
    assert float(plan["reembedding"]["cost"]) > 0
    assert "ingest-pipeline reembed" in cli.run("plan").output
    cli.put("b.txt", paragraphs("beta", 1))
    assert "keeps that model" in cli.run("ingest").stderr
    refused = cli.run("reembed")
    assert refused.exit_code == 1
    assert "USD" in refused.output
    assert embeddings.embedded == embedded + 1
    assert cli.run("reembed", "--json").exit_code == 2
    assert cli.json("reembed", "--fill-only", "--yes")["problems"] == []
    assert cli.json("status")["embedding"] != EMBEDDING
    assert [one["state"] for one in cli.json("status")["generations"]] == ["current", "building"]
    filling: Any = cli.json("status")["reembedding"]
    assert (filling["to"], filling["documents"], filling["documents_to_hold"]) == (EMBEDDING, 2, 2)
    assert (filling["embedded"], filling["failed_documents"]) == (embeddings.embedded - embedded - 1, 0)
    (cost,) = filling["costs"]
    assert Decimal(cost["amount"]) == Decimal(10) * filling["tokens"] / 1_000_000
    cli.put("c.txt", paragraphs("alpha", 2))
    cli.json("ingest")
    filling = cli.json("status")["reembedding"]
    assert (filling["documents"], filling["documents_to_hold"]) == (2, 3)
    assert "readers do not see it" in cli.run("status").output
    assert cli.run("reembed", "--abort").exit_code == 0
    again = cli.json("reembed", "--yes")
    assert (again["problems"], again["embedded"]) == ([], 0)
    status = cli.json("status")
    assert (status["corpus"], status["embedding"], status["documents"]) == ("docs", EMBEDDING, 3)
    assert status["reembedding"] is None
    assert [one["state"] for one in status["generations"]] == ["retired", "current"]
    assert cli.json("audit")["violations"] == []
    assert cli.json("search", "beta 0", "--limit", "1")[0]["document"] in {"a.txt", "b.txt"}
    assert cli.run("reembed", "--drop").exit_code == 0
    assert [one["state"] for one in cli.json("status")["generations"]] == ["dropped", "current"]
