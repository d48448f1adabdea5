"""Assets before a corpus: their files are ingested in one run, without waiting for a tick of the source sensor."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from ingest_pipeline.orchestration.build import DagsterOptions, build_resources, corpus_definitions
from ingest_pipeline.reporting import run_status
from tests.support.dagster.world import CHUNKS, HEAD, METADATA, DagsterWorld
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.world import paragraphs

_FILES = dg.AssetKey("files")
_SENSOR, _SOURCE = "docs_upstream_sensor", "docs_source_sensor"


class Composed(DagsterWorld):
    """The corpus between an asset that makes its files and one that reads it."""

    @property
    def definitions(self) -> dg.Definitions:
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
def dagster(
    tmp_path: Path,
    database_url: str,
    embeddings: EmbeddingServer,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> Generator[Composed]:
    with Composed.over(tmp_path, database_url, embeddings, monkeypatch, **variables) as world:
        assert isinstance(world, Composed)
        yield world


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
