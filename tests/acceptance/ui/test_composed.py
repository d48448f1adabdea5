"""The graph of the example in the real daemon and web server, as `ingest-pipeline ui` starts them in the project."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FloatRect, Page, expect, sync_playwright

from tests.support.dagster.web_ui import eventually, seldom_collecting
from tests.support.servers.ports import free_port

_EXAMPLE = Path(__file__).parents[3] / "examples" / "two_corpora"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PICTURES = os.environ.get("PICTURES")
_PATIENCE_MS = 240_000
_BICYCLE = """
[bicycle]
title = "Bicycles"
text = "{text}"
"""
_ASSETS = (
    "handbook_files",
    "handbook/chunks",
    "handbook/embeddings",
    "handbook/metadata",
    "handbook/head",
    "evaluation",
    "export",
)

# Minutes, most of them waiting for ticks. `definitions/test_example_graph.py` runs the same graph in one process.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.soak]


def selection(*assets: str) -> str:
    keys = [", ".join(json.dumps(name) for name in asset.split("/")) for asset in assets]
    return "[" + ", ".join(f"{{path: [{key}]}}" for key in keys) + "]"


class Location:
    """The example in `ingest-pipeline ui`: its handbook and what is around it, without the sensor for the source."""

    def __init__(self, directory: Path) -> None:
        self.project = project = Path(shutil.copytree(_EXAMPLE, directory / "project"))
        self.url = f"http://127.0.0.1:{free_port()}"
        shutil.rmtree(project / "two_corpora" / "defs" / "library")
        with (project / "two_corpora" / "defs" / "handbook" / "defs.yaml").open("a") as attributes:
            attributes.write("  source_sensor: false\n")
        home = directory / "home"
        home.mkdir()
        tools = Path(sys.executable).parent
        known = {name: value for name, value in os.environ.items() if not name.startswith(("INGEST_", "DAGSTER_"))}
        environment = {
            **known,
            "HOME": str(home),
            "DO_NOT_TRACK": "1",
            "PATH": f"{tools}:{os.environ['PATH']}",
        }
        with (directory / "ui.log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(tools / "ingest-pipeline"), "ui", "--port", self.url.rpartition(":")[2]],
                cwd=project,
                env=seldom_collecting(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310  loopback
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        with suppress(OSError):
            found = self.ask('{ assetNodeOrError(assetKey: {path: ["export"]}) { __typename } }')
            return found["assetNodeOrError"]["__typename"] == "AssetNode"
        return False

    def materialize(self, asset: str) -> None:
        place = 'repositoryLocationName: "two_corpora", repositoryName: "__repository__"'
        selector = (
            f'{{{place}, pipelineName: "__ASSET_JOB", assetSelection: {selection(asset)}, assetCheckSelection: []}}'
        )
        launch = f'launchPipelineExecution(executionParams: {{selector: {selector}, mode: "default"}})'
        done = self.ask(f"mutation {{ launched: {launch} {{ __typename }} }}")
        assert done["launched"]["__typename"] == "LaunchRunSuccess", done

    def materialize_all(self) -> None:
        """Launch a backfill over all partitions of all assets, as the button "Materialize all" does."""
        everything = f"assetSelection: {selection(*_ASSETS)}, allPartitions: true"
        done = self.ask(f"mutation {{ launchPartitionBackfill(backfillParams: {{{everything}}}) {{ __typename }} }}")
        assert done["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", done

    def backfills(self) -> list[str]:
        """The status of each backfill."""
        found = self.ask("{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } } }")
        return [one["status"] for one in found["partitionBackfillsOrError"]["results"]]

    def write(self, text: str) -> None:
        """Change the text of the page about bicycles, or add that page."""
        pages = self.project / "handbook.toml"
        pages.write_text(f"{pages.read_text().partition('[bicycle]')[0].rstrip()}\n{_BICYCLE.format(text=text)}")

    def materializations(self, asset: str) -> int:
        """How often an asset was materialized."""
        key = ", ".join(json.dumps(name) for name in asset.split("/"))
        found = self.ask(
            f"{{ assetNodeOrError(assetKey: {{path: [{key}]}}) "
            "{ ... on AssetNode { assetMaterializations { runId } } } }"
        )
        return len(found["assetNodeOrError"].get("assetMaterializations") or [])

    def has_handled(self, asset: str) -> bool:
        """Whether the automation conditions were evaluated after the run of an asset that they had requested."""
        found = self.ask(
            f"{{ assetConditionEvaluationRecordsOrError(assetKey: {{path: [{json.dumps(asset)}]}}, limit: 1) "
            "{ ... on AssetConditionEvaluationRecords { records { numRequested } } } }"
        )
        return [one["numRequested"] for one in found["assetConditionEvaluationRecordsOrError"]["records"]] == [0]

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
    location.write("Park your bicycle in the yard behind the canteen.")
    location.materialize("handbook_files")
    # If the page is ingested before the conditions have handled the first runs, head is reported once more.
    eventually(lambda: min(location.counts()) >= 2)
    assert location.materializations("handbook/metadata") == 3, "one for each document"
    if _CHROMIUM is not None:
        _look_at_the_pages(location.url, _CHROMIUM)


@pytest.mark.promise("head-asset")
def test_a_backfill_over_everything_runs_what_is_after_head_once(location: Location) -> None:
    location.write("Park your bicycle in the yard.")
    location.materialize("handbook_files")
    eventually(lambda: location.counts() == (1, 1, 1))
    eventually(lambda: location.has_handled("evaluation") and location.has_handled("export"))
    location.write("Park your bicycle in the cellar.")
    location.materialize_all()
    eventually(lambda: location.backfills() == ["COMPLETED_SUCCESS"])
    eventually(lambda: location.has_handled("evaluation") and location.has_handled("export"))
    assert location.counts()[1:] == (2, 2), "once for the change, and not once for each of the three partitions"


def _look_at_the_pages(url: str, chromium: str) -> None:
    """The page of the group shows every asset, and the page of the evaluation what was found."""
    with sync_playwright() as playwright:
        # As root, which CI is, Chromium runs without its sandbox or not at all.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 1150}, device_scale_factor=1.5)
        page.goto(f"{url}/locations/two_corpora/asset-groups/handbook/lineage", wait_until="domcontentloaded")
        for asset in _ASSETS:
            expect(page.get_by_text(asset.rpartition("/")[2], exact=True).first).to_be_visible(timeout=_PATIENCE_MS)
        page.wait_for_timeout(2000)
        invitation = page.get_by_text("Skip", exact=True)  # to Dagster's community
        if invitation.is_visible():
            invitation.click()
        if _PICTURES:
            page.wait_for_timeout(3000)
            page.screenshot(path=Path(_PICTURES) / "composed.png", clip=_around_the_graph(page))
        page.goto(f"{url}/assets/evaluation?view=overview", wait_until="domcontentloaded")
        expect(page.get_by_text("How many days of leave do I have?").first).to_be_visible(timeout=_PATIENCE_MS)
        if _PICTURES:
            page.wait_for_timeout(3000)
            page.screenshot(path=Path(_PICTURES) / "evaluation.png", clip=_below_the_tabs(page))
        browser.close()


def _around_the_graph(page: Page) -> FloatRect:
    """The part of the page that shows the assets, from the first to the last."""
    first = page.get_by_text("handbook_files", exact=True).first.bounding_box()
    last = page.get_by_text("export", exact=True).first.bounding_box()
    assert first is not None
    assert last is not None
    return {"x": first["x"] - 50, "y": first["y"] - 60, "width": last["x"] - first["x"] + 155, "height": 180}


def _below_the_tabs(page: Page) -> FloatRect:
    """The column of the page that shows status and metadata."""
    first = page.get_by_text("Status", exact=True).first.bounding_box()
    right = page.get_by_text("Definition", exact=True).first.bounding_box()
    assert first is not None
    assert right is not None
    return {"x": first["x"] - 45, "y": first["y"] - 20, "width": right["x"] - first["x"], "height": 870}
