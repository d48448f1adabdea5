"""The graph around the example's handbook, copied as a user copies it: files, corpus, evaluation and export."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

_ROOT = Path(__file__).parents[3]
_FILES = dg.AssetKey("handbook_files")
_METADATA = dg.AssetKey(["handbook", "metadata"])
_HEAD = dg.AssetKey(["handbook", "head"])
_EVALUATION, _EXPORT = dg.AssetKey("evaluation"), dg.AssetKey("export")
_BICYCLE = """
[bicycle]
title = "Bicycles"
text = "Park your bicycle in the yard behind the canteen."
"""


class Graph:
    """A copy of the project without the corpus that needs a bucket."""

    def __init__(self, project: Path, instance: dg.DagsterInstance) -> None:
        self.project = project
        self.instance = instance
        self.definitions: dg.Definitions = importlib.import_module("two_corpora.definitions").defs()

    def run(self, job: str, *, config: Any = None) -> dg.ExecuteInProcessResult:
        run = self.definitions.resolve_job_def(job).execute_in_process(instance=self.instance, run_config=config)
        assert run.success
        return run

    def make_files(self) -> None:
        """Materialize the asset upstream alone, as a run of its own."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=self.instance, asset_selection=[_FILES]).success

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        """Evaluate the upstream sensor as the daemon would."""
        sensor = self.definitions.get_repository_def().get_sensor_def("handbook_upstream_sensor")
        resources = {name: (self.definitions.resources or {})[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(
            instance=self.instance, definitions=self.definitions, resources=resources
        ) as context:
            return sensor._raw_fn(context)  # pyright: ignore[reportPrivateUsage, reportReturnType]

    def add_a_page(self) -> None:
        with (self.project / "handbook.toml").open("a") as pages:
            pages.write(_BICYCLE)

    def counts(self) -> tuple[int, int, int]:
        """How often head and the assets after it were materialized."""
        head, evaluation, export = (len(self._all(key)) for key in (_HEAD, _EVALUATION, _EXPORT))
        return head, evaluation, export

    def latest(self, key: dg.AssetKey) -> dict[str, Any]:
        """The metadata of the last materialization of an asset."""
        return {name: value.value for name, value in self._all(key)[0].metadata.items()}

    def _all(self, key: dg.AssetKey) -> list[dg.AssetMaterialization]:
        records = self.instance.fetch_materializations(key, limit=100).records
        return [found for record in records if (found := record.asset_materialization) is not None]

    def exported(self) -> list[str]:
        """The documents of the last export."""
        folder = Path(self.latest(_EXPORT)["folder"])
        documents = pq.read_table(folder / "documents.parquet")["key"].to_pylist()
        assert set(pq.read_table(folder / "chunks.parquet")["document"].to_pylist()) == set(documents)
        return documents


@pytest.fixture
def graph(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[Graph]:
    project = Path(shutil.copytree(_ROOT / "examples" / "two_corpora", tmp_path / "project"))
    defs = project / "two_corpora" / "defs"
    shutil.rmtree(defs / "library")
    with (defs / "handbook" / "defs.yaml").open("a") as attributes:
        attributes.write('  database_url: "{{ env.HANDBOOK_DATABASE_URL }}"\n')
    monkeypatch.setenv("HANDBOOK_DATABASE_URL", database_url)
    monkeypatch.syspath_prepend(str(project))
    with dg.instance_for_test() as instance:
        yield Graph(project, instance)
    for name in [name for name in sys.modules if name.partition(".")[0] == "two_corpora"]:
        del sys.modules[name]


def test_one_run_over_the_graph_starts_what_is_after_head_once_for_each_change(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = graph.run("refresh_handbook")
    order = [event.step_key for event in run.all_events if event.event_type_value == "STEP_SUCCESS"]
    steps = ("handbook_files", "handbook_ingest", "evaluation", "export")
    assert sorted(steps, key=order.index) == list(steps)
    assert graph.counts() == (1, 1, 1)
    assert graph.exported() == ["leave.md", "travel.md"]
    assert graph.latest(_EVALUATION)["recall"] == 1

    graph.run("refresh_handbook")  # writes the same files again
    assert graph.counts() == (1, 1, 1), "nothing changed"

    graph.add_a_page()
    golden = sys.modules["two_corpora.defs.evaluation"].GOLDEN
    monkeypatch.setitem(golden, "Where do I park my bicycle?", "bicycle.md")
    graph.run("refresh_handbook")
    assert graph.counts() == (2, 2, 2)
    assert graph.exported() == ["bicycle.md", "leave.md", "travel.md"]
    assert graph.latest(_EVALUATION)["recall"] == 1, "the new page is found"
    versions = {graph.latest(_EVALUATION)["version"], graph.latest(_EXPORT)["version"], graph.latest(_HEAD)["head"]}
    assert len(versions) == 1, "two inputs of one run read one head"


def test_a_page_that_is_added_upstream_is_ingested_without_a_tick_of_the_source_sensor(graph: Graph) -> None:
    graph.run("refresh_handbook")
    assert isinstance(graph.tick(), dg.SkipReason), "the run ingested the files that it made"
    graph.add_a_page()
    graph.make_files()
    found = graph.tick()
    assert isinstance(found, dg.SensorResult)
    for added in found.dynamic_partitions_requests or ():
        graph.instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
    assert found.run_requests is not None
    [request] = found.run_requests
    graph.run(str(request.job_name or "handbook_ingest_job"), config=request.run_config)
    assert set(graph.instance.get_materialized_partitions(_METADATA)) == {"bicycle.md", "leave.md", "travel.md"}


@pytest.mark.filterwarnings("ignore:Parameter `execution_type`")  # Dagster itself passes it
def test_automation_starts_what_is_after_head_once_for_each_change(graph: Graph) -> None:
    def requested(cursor: Any = None) -> tuple[set[dg.AssetKey], Any]:
        result = dg.evaluate_automation_conditions(
            defs=graph.definitions,
            instance=graph.instance,
            asset_selection=dg.AssetSelection.assets(_FILES, _EVALUATION, _EXPORT),
            cursor=cursor,
        )
        return {key for key in (_FILES, _EVALUATION, _EXPORT) if result.get_num_requested(key)}, result.cursor

    first, cursor = requested()
    assert first == set()
    graph.make_files()
    graph.run("handbook_ingest_job")
    after, cursor = requested(cursor)
    assert after == {_EVALUATION, _EXPORT}
    assert requested(cursor)[0] == set()


@pytest.mark.parametrize(
    ("language", "file"),
    [
        ("python", "files.py"),
        ("yaml", "handbook/defs.yaml"),
        ("python", "evaluation.py"),
        ("python", "export.py"),
        ("python", "jobs.py"),
    ],
)
def test_the_page_about_composing_shows_the_files_of_the_example(language: str, file: str) -> None:
    page = (_ROOT / "docs" / "how-to" / "compose.md").read_text()
    source = (_ROOT / "examples" / "two_corpora" / "two_corpora" / "defs" / file).read_text()
    assert f"```{language}\n{source}```" in page
