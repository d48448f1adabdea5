"""What a run and the ticks of the sensors import, counted in modules, each in a process of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from tests.support.servers.databases import empty_database

_UNUSED = {
    "lancedb", "obstore", "kreuzberg", "openai", "pandas", "matplotlib", "torch", "playwright", "moto", "IPython",
}  # fmt: skip
"""LanceDB is for its own tables, obstore for buckets. kreuzberg runs in a child. The local model needs no client."""
_UNUSED_OURS = {"ingest_pipeline.api", "ingest_pipeline.cli", "ingest_pipeline.restore", "ingest_pipeline.search"}
_TICKS_AND_A_RUN = """
import sys
import dagster as dg
from ingest_pipeline.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    for sensor in defs.sensors:
        resources = {name: defs.resources[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(instance=instance, definitions=defs, resources=resources) as context:
            print(sensor.name, sensor._raw_fn(context))
    print("MODULES", *sys.modules)
    assert defs.resolve_job_def("docs_ingest_job").execute_in_process(instance=instance).success
    print("MODULES", *sys.modules)
"""
# A code location whose jobs run each step in a child process. Each process writes its modules to a file as it ends.
_LOCATION = """
import multiprocessing
import os
import sys
from multiprocessing.util import Finalize
from pathlib import Path
import dagster as dg
from ingest_pipeline import CorpusConfig, DagsterOptions, build_resources, corpus_definitions

def note():
    Path(os.environ["MODULES"], str(os.getpid())).write_text(" ".join(sys.modules))

if multiprocessing.parent_process():
    Finalize(None, note, exitpriority=0)
config = CorpusConfig.from_environment()
job = dg.define_asset_job("all_at_once", selection=dg.AssetSelection.groups("docs").without_checks())
defs = dg.Definitions.merge(
    corpus_definitions(
        config,
        build_resources(config, database_url=dg.EnvVar("INGEST_DATABASE_URL")),
        DagsterOptions(executor="code_location"),
    ),
    dg.Definitions(executor=dg.multiprocess_executor, jobs=[job]),
)

def resolved():
    return defs.resolve_job_def("all_at_once")
"""


def settings(tmp_path: Path, database_url: str) -> dict[str, str]:
    """The variables of a corpus of one document."""
    source = tmp_path / "documents"
    source.mkdir()
    (source / "a.txt").write_text("alpha")
    return {
        "INGEST_CORPUS": "docs",
        "INGEST_SOURCE": str(source),
        "INGEST_STATE": str(tmp_path / "state"),
        "INGEST_MIN_AGE_SECONDS": "0",
        "INGEST_DATABASE_URL": database_url,
    }


def heavy(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & _UNUSED


@dataclass(frozen=True, slots=True)
class Imported:
    """What the ticks of all sensors printed, and the modules of their process after them and after a run."""

    printed: str
    after_ticks: set[str]
    after_run: set[str]


@pytest.fixture(scope="module")
def imported(postgres: str, entrance: str, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    variables = settings(tmp_path_factory.mktemp("imports"), empty_database(postgres, entrance))
    done = subprocess.run(
        [sys.executable, "-c", _TICKS_AND_A_RUN],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, ticks, run = done.stdout.split("MODULES ")
    return Imported(printed, set(ticks.split()), set(run.split()))


@pytest.mark.parametrize("what", ["run", "ticks"])
def test_a_run_and_a_tick_import_nothing_that_they_do_not_use(imported: Imported, what: str) -> None:
    modules = imported.after_run if what == "run" else imported.after_ticks
    assert heavy(modules) == set()
    assert modules & _UNUSED_OURS == set()
    assert ("wordllama" in modules) == (what == "run"), "only a run embeds"
    if what == "ticks":
        assert "docs_source_sensor SensorResult" in imported.printed, "it compared the source, and found a document"
        assert imported.printed.count("_sensor ") == 3
    ours = {name for name in modules if name.partition(".")[0] == "ingest_pipeline"}
    assert "ingest_pipeline.ingestion.run" in ours
    # Much fewer than all that are installed. A library that imports its whole API shows here: openai has 520 modules.
    assert len(modules) < 2700


def test_the_step_of_a_multiprocess_executor_imports_nothing_that_it_does_not_use(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is in this process, its step in a child that Python starts."""
    (tmp_path / "location_of_steps.py").write_text(_LOCATION)
    (noted := tmp_path / "modules").mkdir()
    (home := tmp_path / "home").mkdir()
    for name, value in {**settings(tmp_path, database_url), "MODULES": str(noted), "DAGSTER_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    location = importlib.import_module("location_of_steps")
    try:
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            assert dg.execute_job(dg.reconstructable(location.resolved), instance).success
    finally:
        del sys.modules["location_of_steps"]
    children = [set(file.read_text().split()) for file in noted.iterdir()]
    (step,) = [modules for modules in children if "ingest_pipeline.ingestion.run" in modules]
    assert "wordllama" in step, "it embedded"
    assert heavy(step) == set()
    assert step & _UNUSED_OURS == set()
    assert len(step) < 2700
