"""The asset check `access_listed` names the documents that no search finds, and the Launchpad confirms columns."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from tests.support.dagster.world import DagsterWorld


@pytest.fixture
def variables() -> dict[str, str]:
    return {"INGEST_COLUMNS": json.dumps({"readers": "list<string>", "year": "int"}), "INGEST_ACCESS": "readers"}


def check(dagster: DagsterWorld) -> dg.AssetCheckEvaluation:
    job = dagster.definitions.resolve_job_def("docs_audit_job")
    result = job.execute_in_process(instance=dagster.instance, raise_on_error=False)
    return next(found for found in result.get_asset_check_evaluations() if found.check_name == "access_listed")


@pytest.mark.promise("access")
def test_documents_without_a_list_of_principals_are_named(dagster: DagsterWorld) -> None:
    listed = {"a": ["ann"], "b": [], "c": None}
    for name, readers in listed.items():
        dagster.put(f"{name}.txt", f"Text of {name}.")
        dagster.put(f"{name}.txt.metadata.json", json.dumps({"readers": readers}))
    dagster.put("d.txt", "Text of d.")
    assert dagster.run().success
    found = check(dagster)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.metadata["without_list"].value == 3
    table = found.metadata["found"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["document"] for record in table.records] == ["b.txt", "c.txt", "d.txt"]
    for name in "bcd":
        dagster.put(f"{name}.txt.metadata.json", json.dumps({"readers": ["ann"]}))
    assert dagster.run().success
    assert check(dagster).passed


def test_a_run_with_fewer_columns_fails_until_it_is_confirmed(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", "Text of a.")
    assert dagster.run().success
    dagster.settings = dagster.settings.replace(columns={"readers": "list<string>"})
    refused = dagster.run()
    assert not refused.success
    assert dagster.run(confirm_columns=True).success
    assert dagster.run().success
