"""Assets after a corpus: what runs with it in one run, and what starts when head moves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from ingest_pipeline import CorpusAtHead
from ingest_pipeline.cli import _session
from ingest_pipeline.maintenance.maintain import maintain
from ingest_pipeline.orchestration.build import build_definitions
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, HEAD, METADATA, DagsterWorld
from tests.support.servers.embedding_server import POISON, Fault
from tests.support.world import paragraphs

_ROWS = {CHUNKS, EMBEDDINGS, METADATA}


@dg.asset(key="report", deps=[HEAD], automation_condition=dg.AutomationCondition.eager())
def report() -> None:
    """Reads the whole corpus."""


@dg.asset(key="export", deps=[METADATA], automation_condition=dg.AutomationCondition.eager())
def export() -> None:
    """Depends on one of the three."""


def composed(dagster: DagsterWorld) -> dg.Definitions:
    """The corpus with two assets after it, and a job over everything."""
    everything = dg.define_asset_job("everything", selection=dg.AssetSelection.all())
    return dg.Definitions.merge(
        build_definitions(dagster.settings), dg.Definitions(assets=[report, export], jobs=[everything])
    )


def run_everything(dagster: DagsterWorld, **tags: str) -> dg.ExecuteInProcessResult:
    job = composed(dagster).resolve_job_def("everything")
    return job.execute_in_process(instance=dagster.instance, tags=tags, raise_on_error=False)


def steps(result: dg.ExecuteInProcessResult) -> Mapping[str, str]:
    """The fate of each step, by name."""
    fates = ("STEP_SUCCESS", "STEP_SKIPPED", "STEP_FAILURE")
    events = [event for event in result.all_events if event.event_type_value in fates]
    return {str(event.step_key): event.event_type_value for event in events}


def materialized_by(dagster: DagsterWorld, run_id: str) -> list[tuple[str, str | None]]:
    """Every materialization of a run: the asset and the partition."""
    return sorted(
        (event.asset_key.to_user_string(), event.partition)
        for entry in dagster.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        if (event := entry.dagster_event) is not None and event.asset_key is not None
    )


def heads(dagster: DagsterWorld) -> list[str]:
    """The data versions of all materializations of head, oldest first."""
    records = dagster.instance.fetch_materializations(HEAD, limit=100, ascending=True).records
    found = [record.asset_materialization for record in records]
    return [(event.tags or {})["dagster/data_version"] for event in found if event is not None]


@pytest.mark.promise("head-asset")
@pytest.mark.parametrize(
    ("tags", "partitions"),
    [
        ({}, ["a.txt", "b.txt"]),
        ({"dagster/partition": "b.txt"}, ["b.txt"]),
        (
            {"dagster/asset_partition_range_start": "a.txt", "dagster/asset_partition_range_end": "b.txt"},
            ["a.txt", "b.txt"],
        ),
    ],
    ids=["all that differs", "one partition", "a range of partitions"],
)
def test_one_run_materializes_the_corpus_and_what_depends_on_it(
    dagster: DagsterWorld, tags: Mapping[str, str], partitions: list[str]
) -> None:
    for key in ("a.txt", "b.txt"):
        dagster.put(key, paragraphs(key, 2))
    dagster.instance.add_dynamic_partitions("docs_documents", ["a.txt", "b.txt"])
    result = run_everything(dagster, **tags)
    assert set(steps(result).values()) == {"STEP_SUCCESS"}, steps(result)
    rows = [(asset.to_user_string(), partition) for asset in _ROWS for partition in partitions]
    assert materialized_by(dagster, result.run_id) == sorted(
        [*rows, ("docs/head", None), ("report", None), ("export", None)], key=str
    )
    outputs = dagster.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)
    # Dagster's UI shows no log of a run that has an output without a type check.
    assert all(entry.get_dagster_event().step_output_data.type_check_data is not None for entry in outputs)
    checks = {evaluation.check_name for evaluation in result.get_asset_check_evaluations()}
    assert {"audit", "quarantine", "freshness", "run_audit"} <= checks
    event = dagster.instance.get_latest_materialization_event(HEAD)
    assert event is not None
    assert event.asset_materialization is not None
    plotted = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (plotted["documents"], plotted["chunks"]) == (len(partitions), 2 * len(partitions))
    assert isinstance(plotted["lag_seconds"], float)
    assert 0 <= plotted["lag_seconds"] < 3600


def test_no_two_events_of_an_asset_have_one_millisecond(dagster: DagsterWorld) -> None:
    """Dagster's page of an asset's events shows one of them alone."""
    for number in range(9):
        dagster.put(f"{number}.txt", paragraphs(f"text {number}", 1))
    assert dagster.run().success
    for asset in _ROWS:
        records = dagster.instance.fetch_materializations(asset, limit=100, ascending=True).records
        times = [round(record.timestamp * 1000) for record in records]
        assert times == sorted(set(times))
        assert len(times) == 9


@pytest.mark.promise("head-asset")
def test_an_unchanged_run_starts_nothing_after_it_and_leaves_head_alone(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert run_everything(dagster).success
    result = run_everything(dagster)
    assert result.success
    assert steps(result)["docs_ingest"] == "STEP_SUCCESS"
    assert (steps(result)["report"], steps(result)["export"]) == ("STEP_SKIPPED", "STEP_SKIPPED")
    assert materialized_by(dagster, result.run_id) == []
    assert heads(dagster) == ["docs@2"]


@pytest.mark.promise("head-asset")
def test_a_run_that_publishes_nothing_does_not_move_head(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.embeddings.fail_next(Fault.UNAUTHORIZED, times=9)
    first = run_everything(dagster)
    assert not first.success
    assert (heads(dagster), materialized_by(dagster, first.run_id)) == ([], [])


def test_head_shows_what_was_published(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 3))
    dagster.put("b.txt", paragraphs("beta", 2))
    result = dagster.run()
    shown = dagster.latest(HEAD, None)
    audit = dagster.audit()
    assert (shown["head"], shown["documents"], shown["chunks"]) == (audit.head_version, audit.documents, audit.chunks)
    assert (shown["run"], shown["run_embedded"]) == (result.run_id, dagster.embeddings.embedded)
    assert str(shown["dagster/uri"]).endswith("docs.lance")
    assert shown["saga"]


def test_head_moves_once_for_each_change_and_not_with_maintenance(dagster: DagsterWorld) -> None:
    for number in range(3):
        dagster.put("a.txt", paragraphs(f"text {number}", 2))
        assert dagster.run().success
    (Path(dagster.settings.source) / "a.txt").unlink()
    dagster.put("b.txt", paragraphs("beta", 1))
    assert dagster.run(confirm_removals=True).success
    assert heads(dagster) == ["docs@2", "docs@3", "docs@4", "docs@5"]
    with _session.corpus(dagster.settings) as corpus:
        before = corpus.head().head_version
        maintain(corpus, dagster.settings.retention)
        after = corpus.head().head_version
    dagster.tick("docs_recovery_sensor")
    assert len(heads(dagster)) == 4, f"maintenance moved head from {before} to {after}"


def test_a_failed_document_is_no_reason_to_hide_what_was_published(dagster: DagsterWorld) -> None:
    dagster.put("good.txt", paragraphs("good", 1))
    dagster.put("bad.txt", f"{POISON} is refused by the API.")
    result = run_everything(dagster)
    assert not result.success
    assert heads(dagster) == ["docs@2"]
    executor = dg.in_process_executor.configured({"step_dependency_config": {"require_upstream_step_success": False}})
    patient = dg.define_asset_job("patient", selection=dg.AssetSelection.all(), executor_def=executor)
    job = dg.Definitions.merge(composed(dagster), dg.Definitions(jobs=[patient])).resolve_job_def("patient")
    dagster.put("good.txt", paragraphs("better", 1))
    run = dagster.instance.create_run_for_job(job)
    assert not execute_run(InMemoryJob(job), run, dagster.instance).success
    assert ("report", None) in materialized_by(dagster, run.run_id)
    assert heads(dagster) == ["docs@2", "docs@3"]


def test_one_of_the_assets_can_be_selected_alone_and_all_three_are_materialized(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.instance.add_dynamic_partitions("docs_documents", ["a.txt"])
    job = composed(dagster).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=dagster.instance, asset_selection=[CHUNKS], partition_key="a.txt")
    assert materialized_by(dagster, result.run_id) == [
        ("docs/chunks", "a.txt"),
        ("docs/embeddings", "a.txt"),
        ("docs/head", None),
        ("docs/metadata", "a.txt"),
    ]


def test_head_alone_reports_and_ingests_nothing(dagster: DagsterWorld) -> None:
    job = composed(dagster).resolve_implicit_global_asset_job_def()

    def select_head() -> dg.ExecuteInProcessResult:
        return job.execute_in_process(instance=dagster.instance, asset_selection=[HEAD, report.key])

    dagster.put("a.txt", paragraphs("alpha", 1))
    assert steps(select_head())["report"] == "STEP_SKIPPED", "there is no head yet"
    assert dagster.embeddings.requests == 0
    assert dagster.run().success
    dagster.put("b.txt", paragraphs("beta", 1))
    assert steps(select_head())["report"] == "STEP_SUCCESS"
    assert heads(dagster) == ["docs@2", "docs@2"]


def test_a_retry_starts_what_its_first_attempt_could_not(dagster: DagsterWorld) -> None:
    dagster.put("good.txt", paragraphs("good", 1))
    bad = dagster.put("bad.txt", f"{POISON} is refused by the API.")
    first = run_everything(dagster)
    assert not first.success
    assert "report" not in steps(first)
    bad.unlink()
    tags = {"dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}
    job = composed(dagster).resolve_job_def("everything")
    again = dagster.instance.create_run_for_job(job, parent_run_id=first.run_id, root_run_id=first.run_id, tags=tags)
    assert execute_run(InMemoryJob(job), again, dagster.instance).success
    entries = dagster.instance.all_logs(again.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    assert "report" in {entry.step_key for entry in entries}


@pytest.mark.promise("head-asset")
def test_a_head_that_moved_without_a_run_is_reported_by_the_recovery_sensor(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    with monkeypatch.context() as patch:
        patch.setattr("ingest_pipeline.assets.run_report.report_head", died)
        assert not dagster.run().success
    assert (dagster.audit().documents, heads(dagster)) == (1, [])
    dagster.tick("docs_recovery_sensor")
    assert heads(dagster) == ["docs@2"]
    assert dagster.tick("docs_recovery_sensor") == dg.SkipReason("No saga is in doubt.")
    assert heads(dagster) == ["docs@2"]


def died(*_: object, **__: object) -> bool:
    raise dg.Failure("the process ends here", allow_retries=False)


def test_a_rollback_moves_head(dagster: DagsterWorld) -> None:
    dagster.put("a.txt", paragraphs("alpha", 2))
    assert dagster.run().success
    dagster.put("a.txt", paragraphs("other", 2))
    assert dagster.run().success
    assert dagster.roll_back(version=2).success
    assert heads(dagster) == ["docs@2", "docs@3", "docs@4"]


class Automation:
    """Declarative automation over the composed definitions."""

    def __init__(self, dagster: DagsterWorld, definitions: dg.Definitions | None = None) -> None:
        self.dagster = dagster
        self.definitions = definitions or composed(dagster)
        self.cursor: dg.AutomationConditionSensorDefinition | object | None = None

    def requested(self) -> set[str]:
        """The assets that the next evaluation requests."""
        conditions = {spec.key for spec in self.definitions.resolve_all_asset_specs() if spec.automation_condition}
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.dagster.instance,
            asset_selection=dg.AssetSelection.assets(*conditions),
            cursor=self.cursor,  # pyright: ignore[reportArgumentType]
        )
        self.cursor = result.cursor
        return {key.to_user_string() for key in conditions if result.get_num_requested(key)}


@pytest.mark.promise("head-asset")
def test_automation_requests_what_is_after_head_once_for_each_change(dagster: DagsterWorld) -> None:
    automation = Automation(dagster)
    assert automation.requested() == set()
    dagster.put("a.txt", paragraphs("alpha", 1))
    dagster.put("b.txt", paragraphs("beta", 1))
    assert dagster.run().success
    assert automation.requested() == {"report", "export"}
    assert automation.requested() == set()
    assert dagster.run().success
    assert automation.requested() == set(), "nothing changed"


@pytest.mark.promise("head-asset")
@pytest.mark.parametrize("during", [True, False], ids=["during the run", "after the run, before the next tick"])
def test_a_change_that_an_eager_asset_takes_for_handled_is_reported_again(
    dagster: DagsterWorld, monkeypatch: pytest.MonkeyPatch, during: bool
) -> None:
    def change() -> None:
        dagster.put("b.txt", paragraphs("beta", 1))
        assert dagster.run().success

    @dg.asset(key="reader", ins={"docs": dg.AssetIn(key=HEAD)}, automation_condition=dg.AutomationCondition.eager())
    def reader(docs: CorpusAtHead) -> None:
        if docs.version == 2 and during:
            change()

    def read() -> None:
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=dagster.instance, asset_selection=[reader.key]).success

    definitions = dg.Definitions.merge(build_definitions(dagster.settings), dg.Definitions(assets=[reader]))
    automation = Automation(dagster, definitions)
    automation.requested()
    dagster.put("a.txt", paragraphs("alpha", 1))
    assert dagster.run().success
    assert automation.requested() == {"reader"}
    read()
    if not during:
        change()
    assert automation.requested() == set(), "Dagster takes the change for handled"
    dagster.tick("docs_recovery_sensor")
    assert heads(dagster) == ["docs@2", "docs@3"], "its next ticks may still request a run"
    with monkeypatch.context() as patch:
        later = time.time() + 90
        patch.setattr("ingest_pipeline.reporting.head.time", SimpleNamespace(time=lambda: later))
        dagster.tick("docs_recovery_sensor")
    assert heads(dagster) == ["docs@2", "docs@3", "docs@3"]
    assert automation.requested() == {"reader"}
    read()
    assert automation.requested() == set()


def test_a_document_that_cannot_be_read_holds_nothing_back(dagster: DagsterWorld) -> None:
    automation = Automation(dagster)
    automation.requested()
    dagster.put("a.txt", paragraphs("alpha", 1))
    (Path(dagster.settings.source) / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert dagster.run().success
    assert automation.requested() == {"report", "export"}
