"""What a run and the ticks of the sensors import, counted in modules, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_UNUSED = {
    "lancedb", "obstore", "kreuzberg", "openai", "pandas", "matplotlib", "torch", "playwright", "moto", "IPython",
}  # fmt: skip
"""LanceDB is for its own tables, obstore for buckets. kreuzberg runs in a child. The local model needs no client."""
_UNUSED_OURS = {"ingest_pipeline.api", "ingest_pipeline.cli", "ingest_pipeline.restore", "ingest_pipeline.search"}
_RUN = """
import sys
import dagster as dg
from ingest_pipeline.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    assert defs.resolve_job_def("docs_ingest_job").execute_in_process(instance=instance).success
"""
_TICKS = """
import sys
import dagster as dg
from ingest_pipeline.definitions import defs
with dg.DagsterInstance.ephemeral() as instance:
    for sensor in defs.sensors:
        resources = {name: defs.resources[name] for name in sensor.required_resource_keys}
        with dg.build_sensor_context(instance=instance, definitions=defs, resources=resources) as context:
            print(sensor.name, sensor._raw_fn(context))
"""
# A code location whose jobs run each step in a child process. Each process writes its modules to a file as it ends.
_LOCATION = """
import os
import sys
from multiprocessing.util import Finalize
from pathlib import Path
import dagster as dg
from ingest_pipeline import CorpusConfig, DagsterOptions, build_resources, corpus_definitions

def note():
    Path(os.environ["MODULES"], str(os.getpid())).write_text(" ".join(sys.modules))

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
_STEPS = """
import os
import sys
import dagster as dg
from location import resolved
if __name__ == "__main__":
    with dg.DagsterInstance.local_temp(os.environ["DAGSTER_HOME"]) as instance:
        assert dg.execute_job(dg.reconstructable(resolved), instance).success
    print(os.getpid())
"""


def modules_after(program: str, tmp_path: Path, database_url: str, **more: str) -> tuple[str, set[str]]:
    """What a program prints, and all modules that its process has at the end."""
    source = tmp_path / "documents"
    source.mkdir(exist_ok=True)
    (source / "a.txt").write_text("alpha")
    settings = {"INGEST_CORPUS": "docs", "INGEST_SOURCE": str(source), "INGEST_STATE": str(tmp_path / "state")}
    settings["INGEST_MIN_AGE_SECONDS"] = "0"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint('MODULES', *sys.modules)"],
        env={**os.environ, **settings, **more, "INGEST_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, _, modules = done.stdout.rpartition("MODULES ")
    return printed, set(modules.split())


def heavy(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & _UNUSED


@pytest.mark.parametrize("program", [_RUN, _TICKS], ids=["run", "ticks"])
def test_a_run_and_a_tick_import_nothing_that_they_do_not_use(program: str, tmp_path: Path, database_url: str) -> None:
    printed, modules = modules_after(program, tmp_path, database_url)
    assert heavy(modules) == set()
    assert modules & _UNUSED_OURS == set()
    assert ("wordllama" in modules) == (program is _RUN), "only a run embeds"
    if program is _TICKS:
        assert "docs_source_sensor SensorResult" in printed, "it compared the source, and found a document"
        assert printed.count("_sensor ") == 3
    ours = {name for name in modules if name.partition(".")[0] == "ingest_pipeline"}
    assert "ingest_pipeline.ingestion.run" in ours
    # Much fewer than all that are installed. A library that imports its whole API shows here: openai has 520 modules.
    assert len(modules) < 2700


def test_the_step_of_a_multiprocess_executor_imports_nothing_that_it_does_not_use(
    tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "location.py").write_text(_LOCATION)
    (noted := tmp_path / "modules").mkdir()
    (home := tmp_path / "home").mkdir()
    printed, _ = modules_after(
        _STEPS, tmp_path, database_url, PYTHONPATH=str(tmp_path), MODULES=str(noted), DAGSTER_HOME=str(home)
    )
    parent = printed.split()[-1]
    children = [set(file.read_text().split()) for file in noted.iterdir() if file.name != parent]
    (step,) = [modules for modules in children if "ingest_pipeline.ingestion.run" in modules]
    assert "wordllama" in step, "it embedded"
    assert heavy(step) == set()
    assert step & _UNUSED_OURS == set()
    assert len(step) < 2700
