"""Two code locations, each with a corpus of one name, in one web server and daemon: neither sees the other's work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.databases import empty_database
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer
from tests.support.servers.ports import free_port
from tests.support.world import paragraphs

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200), pytest.mark.promise("prefixes")]
_LOCATIONS = {"law": "law", "people": "people/de"}
_MODULE = """
import dagster as dg
from ingest_pipeline import CorpusConfig, build_resources, corpus_definitions

config = CorpusConfig(
    corpus="docs",
    key_prefix={prefix!r},
    source={source!r},
    state={state!r},
    min_age_seconds=0,
    embedding_model={model!r},
    embedding_dimensions={dimensions},
    embedding_base_url={endpoint!r},
)

@dg.asset(
    key={report!r},
    deps=[dg.AssetKey([*config.key_prefix_parts, "docs", "head"])],
    automation_condition=dg.AutomationCondition.eager(),
)
def report() -> None: ...


automation = dg.AutomationConditionSensorDefinition(
    "automation", target="*", default_status=dg.DefaultSensorStatus.RUNNING
)
defs = dg.Definitions.merge(
    corpus_definitions(config, build_resources(config, database_url=dg.EnvVar({variable!r}))),
    dg.Definitions(assets=[report], sensors=[automation]),
)
"""


@dataclass(slots=True)
class Locations:
    """The running processes, and the folder and database of each location."""

    web: WebUi
    sources: dict[str, Path]
    urls: dict[str, str]

    def partitions(self, location: str) -> dict[str, int]:
        found = self.web.ask(
            f"{{ assetNodeOrError(assetKey: {{path: {_path(location, 'metadata')}}}) {{ ... on AssetNode "
            "{ partitionStats { numMaterialized numFailed numPartitions } } } }"
        )
        return found["assetNodeOrError"].get("partitionStats") or {}

    def materializations(self, path: str) -> int:
        found = self.web.ask(
            f"{{ assetNodeOrError(assetKey: {{path: {path}}}) {{ ... on AssetNode "
            "{ assetMaterializations { runId } } } }"
        )
        return len(found["assetNodeOrError"].get("assetMaterializations") or [])

    def counts(self, location: str) -> tuple[int, int]:
        """How often head and the report after it were materialized."""
        report = f'["{location}_report"]'
        return self.materializations(_path(location, "head")), self.materializations(report)

    def has_evaluated(self, location: str) -> bool:
        """Whether the automation conditions were evaluated, the first of which starts nothing."""
        found = self.web.ask(
            f'{{ assetConditionEvaluationRecordsOrError(assetKey: {{path: ["{location}_report"]}}, limit: 1) '
            "{ ... on AssetConditionEvaluationRecords { records { numRequested } } } }"
        )
        return bool(found["assetConditionEvaluationRecordsOrError"]["records"])

    def documents(self, location: str) -> list[str]:
        with psycopg.connect(self.urls[location]) as connection:
            rows = connection.execute("SELECT key FROM ingest_pipeline.current_document ORDER BY key")
            return [str(key) for (key,) in rows]

    def failures(self) -> list[tuple[str, list[str]]]:
        """The job of each run that failed, and its errors."""
        events = (
            "... on RunFailureEvent { message error { message } } "
            "... on ExecutionStepFailureEvent { error { message causes { message } } }"
        )
        found = self.web.ask(
            "{ runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { jobName eventConnection "
            f"{{ ... on EventConnection {{ events {{ {events} }} }} }} }} }} }} }}"
        )
        return [
            (run["jobName"], [str(event) for event in run["eventConnection"]["events"] if event])
            for run in found["runsOrError"]["results"]
        ]

    def is_up(self) -> bool:
        try:
            found: Any = self.web.ask("{ assetNodes { assetKey { path } } }")
        except OSError:
            return False
        return len(found["assetNodes"]) == 5 * len(_LOCATIONS)


def _path(location: str, asset: str) -> str:
    parts = [*_LOCATIONS[location].split("/"), "docs", asset]
    return "[" + ", ".join(f'"{part}"' for part in parts) + "]"


@pytest.fixture
def locations(postgres: str, entrance: str, tmp_path: Path, embeddings: EmbeddingServer) -> Generator[Locations]:
    environment: dict[str, str] = {}
    sources: dict[str, Path] = {}
    urls: dict[str, str] = {}
    entries: list[str] = []
    for location, prefix in _LOCATIONS.items():
        sources[location] = tmp_path / location / "files"
        sources[location].mkdir(parents=True)
        urls[location] = environment[f"{location.upper()}_URL"] = empty_database(postgres, entrance)
        module = tmp_path / f"{location}_location.py"
        module.write_text(
            _MODULE.format(
                prefix=prefix,
                source=str(sources[location]),
                state=str(tmp_path / location / "state"),
                model=TEST_MODEL,
                dimensions=embeddings.dimensions,
                endpoint=embeddings.base_url,
                report=f"{location}_report",
                variable=f"{location.upper()}_URL",
            )
        )
        entries.append(f"  - python_file: {{relative_path: {module.name}, location_name: {location}}}\n")
    (tmp_path / "workspace.yaml").write_text("load_from:\n" + "".join(entries))
    instance = CorpusConfig(corpus="instance", source="none", state=str(tmp_path / "instance"))
    instance = instance.replace(database_url=empty_database(postgres, entrance))
    environment |= _session.instance_environment(instance)
    port = free_port()
    with (tmp_path / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster"), "dev", "-h", "127.0.0.1", "-p", str(port)],
            env={**os.environ, **environment},
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            found = Locations(WebUi(port), sources, urls)
            eventually(found.is_up)
            yield found
        finally:
            process.terminate()
            process.wait(300)


def test_corpora_of_one_name_in_two_code_locations_are_side_by_side(locations: Locations) -> None:
    eventually(lambda: all(map(locations.has_evaluated, _LOCATIONS)))
    for location, source in locations.sources.items():
        for number in range(2):
            (source / f"{location}-{number}.txt").write_text(paragraphs(f"{location} {number}", 2))
    for location in _LOCATIONS:
        whole = {"numMaterialized": 2, "numFailed": 0, "numPartitions": 2}
        eventually(lambda location=location, whole=whole: locations.partitions(location) == whole)
        eventually(lambda location=location: min(locations.counts(location)) >= 1)
        assert locations.documents(location) == [f"{location}-0.txt", f"{location}-1.txt"]
    before = {location: locations.counts(location) for location in _LOCATIONS}
    (locations.sources["law"] / "law-0.txt").unlink()
    eventually(lambda: locations.counts("law")[0] == before["law"][0] + 1)
    eventually(lambda: locations.counts("law")[1] == before["law"][1] + 1)
    assert locations.counts("people") == before["people"], "a change of one corpus starts nothing of the other"
    assert locations.partitions("people")["numPartitions"] == 2
    assert locations.documents("people") == ["people-0.txt", "people-1.txt"]
    assert locations.failures() == []
    for run in locations.web.runs("{}"):
        location = run["repositoryOrigin"]["repositoryLocationName"]
        job = run["jobName"]
        assert job == "__ASSET_JOB" or job.startswith(f"{_LOCATIONS[location].replace('/', '__')}__docs_"), run
