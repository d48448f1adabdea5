"""The page about composing, in Dagster's real daemon and web server: files, corpus, evaluation and export."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.dagster.web_ui import eventually
from tests.support.servers.ports import free_port

_PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "compose.md"
_ASSETS = (
    "handbook_files",
    "handbook/chunks",
    "handbook/embeddings",
    "handbook/metadata",
    "handbook/head",
    "evaluation",
    "export",
)

pytestmark = pytest.mark.timeout(500)


def selection(*assets: str) -> str:
    keys = [", ".join(json.dumps(name) for name in asset.split("/")) for asset in assets]
    return "[" + ", ".join(f"{{path: [{key}]}}" for key in keys) + "]"


class Location:
    """The page's code location in `dagster dev`."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._url = f"http://127.0.0.1:{free_port()}"
        blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
        (project / "definitions.py").write_text(blocks[-1])
        (project / "home").mkdir()
        (project / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        tools = Path(sys.executable).parent
        environment = {**os.environ, "DAGSTER_HOME": str(project / "home"), "PATH": f"{tools}:{os.environ['PATH']}"}
        arguments = ["dev", "-f", "definitions.py", "-h", "127.0.0.1", "-p", self._url.rpartition(":")[2]]
        with (project / "dev.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(tools / "dagster"), *arguments],
                cwd=project,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self._url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  loopback
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        with suppress(OSError):
            found = self.ask('{ assetNodeOrError(assetKey: {path: ["export"]}) { __typename } }')
            return found["assetNodeOrError"]["__typename"] == "AssetNode"
        return False

    def materialize(self, asset: str) -> None:
        place = 'repositoryLocationName: "definitions.py", repositoryName: "__repository__"'
        selector = (
            f'{{{place}, pipelineName: "__ASSET_JOB", assetSelection: {selection(asset)}, assetCheckSelection: []}}'
        )
        launch = f'launchPipelineExecution(executionParams: {{selector: {selector}, mode: "default"}})'
        done = self.ask(f"mutation {{ launched: {launch} {{ __typename }} }}")
        assert done["launched"]["__typename"] == "LaunchRunSuccess", done

    def materializations(self, asset: str) -> int:
        """How often an asset was materialized."""
        key = ", ".join(json.dumps(name) for name in asset.split("/"))
        found = self.ask(
            f"{{ assetNodeOrError(assetKey: {{path: [{key}]}}) "
            "{ ... on AssetNode { assetMaterializations { runId } } } }"
        )
        return len(found["assetNodeOrError"].get("assetMaterializations") or [])

    def counts(self) -> tuple[int, ...]:
        """How often head and the assets after it were materialized."""
        return tuple(map(self.materializations, _ASSETS[-3:]))


@pytest.fixture
def location(tmp_path: Path) -> Generator[Location]:
    found = Location(tmp_path)
    try:
        eventually(found.is_up)
        yield found
    finally:
        found.stop()


def test_files_made_upstream_reach_the_last_asset_without_a_tick_of_the_source(location: Location) -> None:
    location.materialize("handbook_files")
    eventually(lambda: location.counts() == (1, 1, 1))
    (location.project / "files" / "travel.md").write_text("# Travel\n\nBook trains early.")
    location.materialize("handbook_files")
    eventually(lambda: location.counts() == (2, 2, 2))
    assert location.materializations("handbook/metadata") == 2, "one for each document"
