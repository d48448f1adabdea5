"""`ingest-pipeline ui`, started as a user starts it, and queried through GraphQL as its pages do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any

from tests.support.storm.processes import kill_below

_ASSETS = [{"path": ["docs", name]} for name in ("chunks", "embeddings", "metadata")]
_UP_SECONDS = 240
_DOWN_SECONDS = 60
_RELOADS = 4
_UNDER_WAY = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]
_RUNS = (
    "query($statuses: [RunStatus!]) { runsOrError(filter: {statuses: $statuses}, limit: 5000) "
    "{ ... on Runs { results { runId status } } } }"
)
_BACKFILLS = "{ partitionBackfillsOrError(limit: 500) { ... on PartitionBackfills { results { id status } } } }"
_LAUNCH = (
    "mutation($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) "
    "{ __typename ... on LaunchBackfillSuccess { backfillId } } }"
)
_RUN = (
    "mutation($parameters: ExecutionParams!) { launchPipelineExecution(executionParams: $parameters) "
    "{ __typename ... on LaunchRunSuccess { run { runId } } } }"
)
_LOCATION = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_MATERIALIZED = (
    '{ assetNodeOrError(assetKey: {path: ["docs", "metadata"]}) { ... on AssetNode { assetPartitionStatuses '
    "{ ... on DefaultPartitionStatuses { materializedPartitions } } } } }"
)


class Dagster:
    """Web server, daemon and code server over one corpus.

    Args:
        environment: Environment of the process.
        directory: Working folder, with the log.
        port: Port of the web server.
        command: The command that starts the processes. Default: `ingest-pipeline ui`.
    """

    def __init__(
        self, environment: Mapping[str, str], directory: Path, port: int, command: Sequence[str] | None = None
    ) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"
        self._arguments = command or [sys.executable, "-m", "ingest_pipeline.cli.main", "ui", "--port", str(port)]
        self._environment, self._directory = dict(environment), directory
        self._log: IO[bytes] = (directory / "ui.log").open("ab")
        self._replacing = Lock()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        return subprocess.Popen(
            self._arguments, env=self._environment, cwd=self._directory, stdout=self._log, stderr=subprocess.STDOUT
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def lives(self) -> bool:
        """Whether the process runs, or is being restarted after a kill.

        A process that starts while Postgres is starting fails with an error, and is then started again.
        """
        with self._replacing:
            if self._process.poll() == 1 and time.monotonic() < self._started + _UP_SECONDS:
                self._process = self._start()
            return self._process.poll() is None

    def die_and_start_again(self) -> None:
        """SIGKILL all processes at once, run workers too, as when the machine is reset; then start again."""
        with self._replacing:
            kill_below(self.pid)
            self._process.kill()
            self._process.wait()
            self._process = self._start()

    def wait_until_up(self) -> None:
        end = time.monotonic() + _UP_SECONDS
        while True:
            try:
                self.runs()
            except OSError:
                assert self.lives(), "the web server or the daemon ended; see ui.log"
                assert time.monotonic() < end, "the web server does not come up"
                time.sleep(0.5)
            else:
                return

    def stop(self) -> bool:
        """Interrupt the process as a user does; returns whether it then ended by itself."""
        self._process.terminate()
        try:
            self._process.wait(_DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            self._log.close()
        return True

    def runs(self) -> Counter[str]:
        """Runs by status."""
        return Counter(run["status"] for run in self._runs(None))

    def runs_under_way(self) -> list[str]:
        return [f"{run['runId']} is {run['status']}" for run in self._runs(_UNDER_WAY)]

    def _runs(self, statuses: list[str] | None) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self._ask(_RUNS, {"statuses": statuses})["runsOrError"]["results"]
        return found

    def backfills(self) -> Counter[str]:
        """Backfills by status."""
        found = self._ask(_BACKFILLS, {})["partitionBackfillsOrError"]["results"]
        return Counter(backfill["status"] for backfill in found)

    def backfill(self, partitions: Sequence[str]) -> str:
        """Launch a backfill; returns Dagster's answer."""
        parameters = {"assetSelection": _ASSETS, "partitionNames": list(partitions)}
        answer: str = self._ask(_LAUNCH, {"parameters": parameters})["launchPartitionBackfill"]["__typename"]
        return answer

    def launch(self) -> str:
        """Launch a run over everything that differs; returns its id."""
        (node,) = self._ask(_LOCATION, {})["repositoriesOrError"]["nodes"]
        selector = {
            "repositoryLocationName": node["location"]["name"],
            "repositoryName": node["name"],
            "jobName": "docs_ingest_job",
        }
        parameters = {"selector": selector, "runConfigData": {}, "mode": "default"}
        run: str = self._ask(_RUN, {"parameters": parameters})["launchPipelineExecution"]["run"]["runId"]
        return run

    def materialized(self) -> set[str]:
        """Partitions that the page of an asset shows as materialized."""
        found = self._ask(_MATERIALIZED, {})["assetNodeOrError"]["assetPartitionStatuses"]
        return set(found.get("materializedPartitions", []))

    def _ask(self, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
        """Query as a user does who reloads a page: the web server notices dead connections only by a failed request."""
        for _ in range(_RELOADS):
            with suppress(urllib.error.HTTPError):
                return self._ask_once(query, variables)
            time.sleep(0.5)
        return self._ask_once(query, variables)

    def _ask_once(self, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  loopback
            found = json.load(answer)
        if not found.get("data") or any(value is None for value in found["data"].values()):
            # The server answers, but its database did not: Postgres was restarted.
            raise OSError(str(found.get("errors"))[:300])
        data: dict[str, Any] = found["data"]
        for value in data.values():
            if value == {}:
                raise OSError("Dagster answered with an error of its own")
        return data
