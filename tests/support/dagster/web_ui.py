"""Dagster's web server and daemon, started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support.dagster.brisk import BRISK
from tests.support.dagster.cli import Cli
from tests.support.dagster.preloaded import preloaded
from tests.support.servers.ports import free_port

_PATIENCE_SECONDS = 480
_STARTUP = Path(__file__).parent / "startup"


class WebUi:
    """A running `ingest-pipeline ui`.

    Args:
        port: Port of the web server, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    @contextmanager
    def over(cls, cli: Cli, *, brisk: bool = False) -> Generator[Self]:
        """Web server and daemon of a corpus, which answer when the block begins and end with it.

        Args:
            cli: The command line of the corpus.
            brisk: Whether the processes wait less and open fewer connections, see `tests.support.dagster.brisk`.
        """
        port = free_port()
        with (cli.directory / "ui.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest_pipeline.cli.main", "ui", "--port", str(port)],
                env=preloaded({**os.environ, **cli.environment, **({BRISK: "1"} if brisk else {})}),
                cwd=cli.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            server = cls(port)
            try:
                eventually(server._is_up)
                yield server
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(300)

    def ask(self, query: str) -> Any:
        """The data of a GraphQL query."""
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310  loopback
            return json.load(answer)["data"]

    def partitions(self, corpus: str = "docs") -> dict[str, int]:
        """How many partitions of a corpus there are, and how many are materialized and failed."""
        found = self.ask(
            f'{{ assetNodeOrError(assetKey: {{path: ["{corpus}", "metadata"]}}) {{ ... on AssetNode '
            "{ partitionStats { numMaterialized numFailed numPartitions } } } }"
        )
        return found["assetNodeOrError"].get("partitionStats") or {}

    def backfills(self) -> list[dict[str, Any]]:
        """The status and the number of partitions of every backfill."""
        found = self.ask(
            "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status numPartitions } } } }"
        )
        return found["partitionBackfillsOrError"]["results"]

    def backfill(self, partitions: Iterable[str]) -> None:
        """Launch a backfill over partitions of the corpus, as the button of the page does."""
        assets = ", ".join(f'{{path: ["docs", "{name}"]}}' for name in ("chunks", "embeddings", "metadata"))
        parameters = f"assetSelection: [{assets}], partitionNames: {json.dumps(sorted(partitions))}"
        done = self.ask(f"mutation {{ launchPartitionBackfill(backfillParams: {{{parameters}}}) {{ __typename }} }}")
        assert done["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", done

    def no_run_is_open(self) -> bool:
        """Whether every run has ended."""
        return {run["status"] for run in self.runs("{}")} <= {"SUCCESS", "FAILURE", "CANCELED"}

    def launch(self) -> str:
        """Launch a run over the whole corpus; returns its id."""
        place = 'repositoryLocationName: "ingest_pipeline.definitions", repositoryName: "__repository__"'
        selector = f'{{{place}, pipelineName: "docs_ingest_job"}}'
        run = f'executionParams: {{selector: {selector}, mode: "default", runConfigData: "{{}}"}}'
        return self._launched(f"launchPipelineExecution({run})")

    def execute_again(self, run: str) -> str:
        """Execute a run again from its failure; returns the new run's id."""
        again = f'reexecutionParams: {{parentRunId: "{run}", strategy: FROM_FAILURE}}'
        return self._launched(f"launchPipelineReexecution({again})")

    def _launched(self, mutation: str) -> str:
        done = self.ask(f"mutation {{ launched: {mutation} {{ ... on LaunchRunSuccess {{ run {{ runId }} }} }} }}")
        return done["launched"]["run"]["runId"]

    def status(self, run: str) -> str:
        """The status of a run."""
        return self.ask(f'{{ runOrError(runId: "{run}") {{ ... on Run {{ status }} }} }}')["runOrError"]["status"]

    def runs(self, filter_: str) -> list[dict[str, Any]]:
        """The runs that a page lists, newest first.

        Args:
            filter_: The filter in the words of GraphQL.
        """
        fields = "runId status jobName repositoryOrigin { repositoryName repositoryLocationName }"
        found = self.ask(f"{{ runsOrError(filter: {filter_}) {{ ... on Runs {{ results {{ {fields} }} }} }} }}")
        return found["runsOrError"]["results"]

    def _is_up(self) -> bool:
        try:
            return bool(self.partitions())
        except OSError:
            return False


def seldom_collecting(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, for Python processes that look for garbage less often.

    A tenth of the CPU that starts a process of Dagster would go into that search, and each run starts one.
    """
    path = f"{_STARTUP}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    return {**environment, "PYTHONPATH": path.rstrip(os.pathsep)}


def eventually(what: Callable[[], bool]) -> None:
    """Wait until a condition is true, which may take Dagster a tick or two."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(2.5)  # each look is a query of Dagster, which opens its connections anew
