"""Assets before a corpus: their files are ingested in one run, without waiting for a tick of the source sensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from ingest_pipeline.errors import SourceMissingError
from ingest_pipeline.orchestration.build import DagsterOptions, build_resources, corpus_definitions
from ingest_pipeline.reporting import run_status
from tests.support.dagster.world import CHUNKS, EMBEDDINGS, HEAD, METADATA, DagsterWorld
from tests.support.world import paragraphs

_FILES = dg.AssetKey("files")
_SENSOR, _SOURCE = "docs_upstream_sensor", "docs_source_sensor"


class Composed(DagsterWorld):
    """The corpus between an asset that makes its files and one that reads it."""

    @property
    def definitions(self) -> dg.Definitions:
        """Files, corpus, report, and a job over all of them."""
        source = Path(self.settings.source)

        @dg.asset(key=_FILES)
        def files() -> None:
            (source / "made.txt").write_text(paragraphs("made upstream", 2))

        @dg.asset(key="report", deps=[HEAD])
        def report() -> None: ...

        resources = build_resources(self.settings, database_url=dg.EnvVar("INGEST_DATABASE_URL"))
        corpus = corpus_definitions(self.settings, resources, DagsterOptions(upstream=["files"]))
        everything = dg.define_asset_job("everything", selection=dg.AssetSelection.all())
        return dg.Definitions.merge(corpus, dg.Definitions(assets=[files, report], jobs=[everything]))

    def make_files(self) -> None:
        """Materialize the asset upstream alone, as a run of its own."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=self.instance, asset_selection=[_FILES]).success

    def begin(self, job: str, **tags: str) -> dg.DagsterRun:
        """A run of a job that has started and does not end."""
        run = self.instance.create_run_for_job(self.definitions.resolve_job_def(job), tags=tags)
        started = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=job)
        self.instance.report_dagster_event(started, run_id=run.run_id)
        return run


@pytest.fixture
def world() -> type[DagsterWorld]:
    return Composed


@pytest.mark.promise("upstream")
def test_new_files_of_an_asset_upstream_are_ingested_by_one_run(dagster: Composed) -> None:
    assert isinstance(dagster.tick(_SENSOR), dg.SkipReason), "nothing was made yet"
    for number in range(3):
        dagster.put(f"{number}.txt", paragraphs(f"file {number}", 1))
    dagster.make_files()
    [run] = dagster.follow(_SENSOR)
    assert run.success
    assert dagster.materialized(METADATA) == {"0.txt", "1.txt", "2.txt", "made.txt"}
    again = dagster.tick(_SENSOR)
    assert isinstance(again, dg.SkipReason), "one run for one materialization"


def test_files_that_the_source_sensor_ingested_already_are_not_requested(dagster: Composed) -> None:
    dagster.make_files()
    assert len(dagster.follow(_SOURCE)) == 1
    dagster.cursor = None
    tick = dagster.tick(_SENSOR)
    assert isinstance(tick, dg.SkipReason)
    assert "no document differs" in str(tick.skip_message)


@pytest.mark.promise("upstream")
@pytest.mark.parametrize("job", ["everything", "docs_ingest_job"])
def test_both_sensors_wait_for_a_run_that_ingests_everything(dagster: Composed, job: str) -> None:
    dagster.make_files()
    run = dagster.begin(job)
    for sensor in (_SENSOR, _SOURCE):
        dagster.cursor = None
        assert isinstance(dagster.tick(sensor), dg.SkipReason), sensor
    dagster.instance.report_run_failed(run)
    dagster.cursor = None
    assert isinstance(dagster.tick(_SENSOR), dg.SensorResult), "the materialization was not forgotten"


def test_a_run_of_other_assets_is_not_waited_for(dagster: Composed) -> None:
    dagster.make_files()
    others = dg.define_asset_job("others", selection=dg.AssetSelection.assets(_FILES))
    job = dg.Definitions.merge(dagster.definitions, dg.Definitions(jobs=[others])).resolve_job_def("others")
    run = dagster.instance.create_run_for_job(job)
    dagster.instance.report_dagster_event(
        dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="others"), run_id=run.run_id
    )
    assert isinstance(dagster.tick(_SENSOR), dg.SensorResult)


@pytest.mark.promise("upstream")
def test_one_run_makes_the_files_ingests_them_and_goes_on(dagster: Composed) -> None:
    job = dagster.definitions.resolve_job_def("everything")
    result = job.execute_in_process(instance=dagster.instance)
    order = [event.step_key for event in result.all_events if event.event_type_value == "STEP_SUCCESS"]
    assert order.index("files") < order.index("docs_ingest") < order.index("report")
    assert dagster.materialized(METADATA) == {"made.txt"}
    dagster.cursor = None
    assert isinstance(dagster.tick(_SENSOR), dg.SkipReason)


def test_a_partition_is_fresh_until_its_file_is_made_again(dagster: Composed) -> None:
    dagster.make_files()
    dagster.follow(_SENSOR)
    graph = dagster.definitions.resolve_asset_graph()

    def status() -> StaleStatus:
        resolver = CachingStaleStatusResolver(dagster.instance, graph, LoadingContextForTest(dagster.instance))
        return resolver.get_status(CHUNKS, "made.txt")

    assert status() is StaleStatus.FRESH
    dagster.make_files()
    assert status() is StaleStatus.STALE


def test_a_run_whose_first_step_is_upstream_is_not_taken_for_dead(
    dagster: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.make_files()
    dagster.follow(_SENSOR)
    monkeypatch.setattr(run_status, "_CLAIM_SECONDS", 0.0)
    job = dagster.definitions.resolve_implicit_global_asset_job_def()
    run = dagster.instance.create_run_for_job(job, asset_selection=frozenset({_FILES, CHUNKS, METADATA}))
    dagster.instance.report_dagster_event(
        dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=job.name), run_id=run.run_id
    )
    dagster.tick("docs_recovery_sensor")
    found = dagster.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is dg.DagsterRunStatus.STARTED


@pytest.mark.promise("shown-in-dagster")
@pytest.mark.parametrize("scheme", ["file", "folder"])
def test_what_is_reported_after_a_death_has_the_lineage_that_the_run_would_have_reported(
    dagster: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster.make_files()
    assert dagster.run().success
    version = _inputs(dagster)[_FILES]
    assert version != "INITIAL"
    for number in range(2):
        dagster.put("made.txt", paragraphs(f"other {number}", 2))
        with monkeypatch.context() as patch:
            patch.setattr("ingest_pipeline.assets.run_report.RunReport._log", _die)
            patch.setattr("ingest_pipeline.assets.run_report.RunReport._mark_reported", _die)
            assert not dagster.run().success
    dagster.make_files()  # after the death, so what was published was not made of these
    dagster.follow("docs_recovery_sensor")
    if dagster.settings.scheme.kind == "file":
        assert "status" in dagster.latest(CHUNKS, "made.txt"), "the sensor has reported it, and not another run"
        assert _inputs(dagster) == {_FILES: version}
    assert _lineage(dagster, CHUNKS)["text"] == [("files", "content")]
    assert _lineage(dagster, EMBEDDINGS)["vector"] == [("docs/chunks", "text")]


def test_a_rollback_keeps_the_lineage_of_the_files(dagster: Composed) -> None:
    dagster.make_files()
    assert dagster.run().success
    dagster.put("made.txt", paragraphs("other", 2))
    assert dagster.run().success
    assert dagster.roll_back(version=2).success
    assert dagster.latest(CHUNKS, "made.txt")["rolled_back_to"] == 2
    assert _lineage(dagster, CHUNKS)["text"] == [("files", "content")]
    assert set(_inputs(dagster)) == {_FILES}


def _die(*_: object) -> None:
    raise dg.Failure("the process ends here", allow_retries=False)


def _latest(dagster: Composed, asset: dg.AssetKey) -> dg.AssetMaterialization:
    event = dagster.instance.get_latest_materialization_event(asset)
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def _inputs(dagster: Composed) -> Mapping[dg.AssetKey, str]:
    """The data versions that the last materialization of the chunks names as its inputs."""
    prefix = "dagster/input_data_version/"
    tags = _latest(dagster, CHUNKS).tags or {}
    return {
        dg.AssetKey.from_user_string(name.removeprefix(prefix)): version
        for name, version in tags.items()
        if name.startswith(prefix)
    }


def _lineage(dagster: Composed, asset: dg.AssetKey) -> Mapping[str, list[tuple[str, str]]]:
    found = _latest(dagster, asset).metadata["dagster/column_lineage"].value
    assert isinstance(found, dg.TableColumnLineage)
    return {
        column: [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]
        for column, deps in found.deps_by_column.items()
    }


@pytest.mark.promise("upstream")
def test_before_the_first_files_are_made_no_tick_fails(dagster: Composed) -> None:
    folder = Path(dagster.settings.source)
    folder.rmdir()
    for sensor in (_SOURCE, "docs_recovery_sensor", "docs_batch_sensor"):
        skipped = dagster.tick(sensor)
        assert isinstance(skipped, dg.SkipReason)
        assert "does not exist, because files was not materialized yet" in str(skipped.skip_message)
    folder.mkdir()
    dagster.make_files()
    (folder / "made.txt").unlink()
    folder.rmdir()
    for sensor in (_SENSOR, _SOURCE, "docs_recovery_sensor", "docs_batch_sensor"):
        dagster.cursor = None
        with pytest.raises(SourceMissingError):
            dagster.tick(sensor)
