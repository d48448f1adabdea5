"""What the asset checks say: of which invariant, how bad it is, of which documents, and of no others than asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from ingest_pipeline.assets.checks.check_results import audit_results, freshness_result
from ingest_pipeline.maintenance.audit import AuditReport, Violation
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.run_backoff import RunBackoff
from ingest_pipeline.types import SourceObject
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, METADATA, DagsterWorld
from tests.support.world import paragraphs

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
_STORES = {"audit", "chunks_match", "single_publication", "texts_match", "unique_chunk_ids", "valid_vectors"}


@pytest.fixture
def scheme() -> str:
    return "folder"


def materialize(dagster: DagsterWorld, tags: Mapping[str, str]) -> dict[str, dg.AssetCheckEvaluation]:
    """A materialization from the UI: the assets and all their checks, in one run."""
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(tags=tags, instance=dagster.instance, raise_on_error=False)
    assert result.success
    keys = dagster.definitions.resolve_asset_graph().asset_check_keys
    latest = dagster.instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    assert {record.run_id for record in latest.values()} == {result.run_id}
    return {key.name: evaluation for key, record in latest.items() if (evaluation := record.evaluation) is not None}


def rows(evaluation: dg.AssetCheckEvaluation) -> list[Mapping[str, Any]]:
    table = evaluation.metadata["found"]
    assert isinstance(table, dg.TableMetadataValue)
    return [record.data for record in table.records]


def report(*violations: Violation) -> AuditReport:
    return AuditReport("docs", 7, 2, 5, 0, list(violations))


@pytest.mark.parametrize(
    "invariant", ["chunks match", "single publication", "texts match", "unique chunk ids", "valid vectors"]
)
def test_a_broken_invariant_fails_its_own_check_and_the_audit(invariant: str) -> None:
    chunk = str(UUID(int=7))
    results = audit_results(report(Violation(invariant, "a.txt", "1 vectors are wrong", [chunk])), 32)
    failed = {name for name, result in results.items() if not result.passed}
    assert failed == {invariant.replace(" ", "_"), "audit"}
    assert set(results) == _STORES
    for name in failed:
        assert results[name].severity is dg.AssetCheckSeverity.ERROR
        table = results[name].metadata["found"]
        assert isinstance(table, dg.TableMetadataValue)
        assert [record.data["ids"] for record in table.records] == [chunk]
    assert results["valid_vectors"].metadata["dimensions"].value == 32


@pytest.mark.parametrize("invariant", ["nothing in doubt", "no orphan files"])
def test_violations_that_correct_themselves_are_warnings(invariant: str) -> None:
    results = audit_results(report(Violation(invariant, None, "3 files belong to nothing", ["x"])), 32)
    assert not results["audit"].passed
    assert results["audit"].severity is dg.AssetCheckSeverity.WARN
    serious = Violation("head opens", None, "it does not", ["7"])
    assert audit_results(report(serious), 32)["audit"].severity is dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(("minutes", "passed"), [(1, True), (20, False)])
def test_freshness_ignores_changes_of_the_last_minutes(minutes: int, passed: bool) -> None:
    changed = SourceObject("a.txt", "e", 3, NOW - timedelta(minutes=minutes))
    result = freshness_result([DocumentPlan("a.txt", "a.txt", changed, None)], NOW)
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.WARN)
    since = result.metadata["since"]
    assert isinstance(since, dg.TimestampMetadataValue)
    assert since.value == changed.last_modified.timestamp()


def test_freshness_counts_a_removal_at_once() -> None:
    assert not freshness_result([DocumentPlan("a.txt", "a.txt", None, None)], NOW).passed
    assert freshness_result([], NOW).passed


def test_freshness_names_the_reason_why_runs_fail() -> None:
    backoff = RunBackoff(2, "The key is refused.", NOW, NOW, "settings")
    shown = freshness_result([DocumentPlan("a.txt", "a.txt", None, None)], NOW, backoff).metadata["runs"].value
    assert "last 2 runs failed as a whole: The key is refused." in str(shown)


def test_checks_of_a_run_cover_its_partitions_and_have_names_of_their_own(dagster: DagsterWorld) -> None:
    for folder in ("a", "b", "c"):
        dagster.put(f"{folder}/one.txt", paragraphs(folder, 2))
        dagster.put(f"{folder}/two.txt", paragraphs(f"{folder}{folder}", 1))
    dagster.run()
    assert all(evaluation.passed for evaluation in materialize(dagster, {"dagster/partition": "a/"}).values())
    with dagster.connection() as connection:
        connection.execute("DELETE FROM ingest_pipeline.chunk WHERE document = 'b/two.txt'")
    old = time.time() - 3600
    os.utime(dagster.put("c/two.txt", paragraphs("other", 1)), (old, old))

    found = materialize(dagster, {"dagster/partition": "a/"})
    assert set(found) == _STORES | {"freshness", "quarantine", "on_hold", "run_audit", "run_freshness"}
    assert found["run_audit"].metadata["documents"].value == 2
    assert {name for name, evaluation in found.items() if not evaluation.passed} == {
        "audit",
        "chunks_match",
        "freshness",
    }, "a sound partition hides nothing of the others"

    found = materialize(dagster, {"dagster/partition": "b/"})
    assert not found["run_audit"].passed
    assert found["run_freshness"].passed
    assert {row["document"] for row in rows(found["run_audit"])} == {"b/two.txt"}
    assert {row["document"] for row in rows(found["chunks_match"])} == {"b/two.txt"}
    assert found["run_audit"].asset_key == found["chunks_match"].asset_key == METADATA
    assert (found["texts_match"].asset_key, found["unique_chunk_ids"].asset_key) == (CHUNKS, EMBEDDINGS)

    ends = {"dagster/asset_partition_range_start": "a/", "dagster/asset_partition_range_end": "b/"}
    found = materialize(dagster, ends)
    assert found["run_audit"].metadata["documents"].value == 4
    assert not found["run_audit"].passed

    assert dagster.check() == dict.fromkeys(_STORES | {"freshness", "quarantine", "on_hold"}, True) | {
        "audit": False,
        "chunks_match": False,
        "freshness": False,
    }


def test_the_checks_of_a_run_alone_cover_the_last_publication(dagster: DagsterWorld) -> None:
    dagster.put("a/one.txt", paragraphs("one", 2))
    assert dagster.run().success
    dagster.put("b/two.txt", paragraphs("two", 2))
    assert dagster.run().success
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    checks = {dg.AssetCheckKey(METADATA, name) for name in ("run_audit", "run_freshness")}
    before = dagster.embeddings.requests
    result = job.get_subset(asset_selection=set(), asset_check_selection=checks).execute_in_process(
        instance=dagster.instance
    )
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert set(found) == {"run_audit", "run_freshness"}
    assert found["run_audit"].metadata["documents"].value == 1
    assert dagster.embeddings.requests == before
