"""Dagster's real daemon and web server, started as a user starts them, watching a folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.embedding_server import EmbeddingServer
from tests.support.world import paragraphs

pytestmark = pytest.mark.timeout(240)
_PATIENCE_SECONDS = 100


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class WebServer:
    """A running `ingest-pipeline ui`."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str) -> Any:
        body = json.dumps({"query": query}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  loopback
            return json.load(answer)["data"]

    def partitions(self) -> dict[str, int]:
        found = self.ask(
            '{ assetNodeOrError(assetKey: {path: ["docs", "metadata"]}) { ... on AssetNode '
            "{ partitionStats { numMaterialized numFailed numPartitions } } } }"
        )
        return found["assetNodeOrError"].get("partitionStats") or {}

    def is_up(self) -> bool:
        try:
            return bool(self.partitions())
        except OSError:
            return False


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(1)


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    return Cli.over(tmp_path, database_url, embeddings)


@pytest.fixture
def web(cli: Cli) -> Generator[WebServer]:
    port = free_port()
    log = (cli.directory / "ui.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest_pipeline.cli", "ui", "--port", str(port)],
        env={**os.environ, **cli.environment},
        cwd=cli.directory,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    server = WebServer(port)
    try:
        eventually(server.is_up)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.close()


def test_files_that_come_change_fail_and_go_are_seen(cli: Cli, web: WebServer) -> None:
    path = cli.put("a.txt", paragraphs("alpha", 2))
    cli.put("b.txt", paragraphs("beta", 2))
    cli.put("empty.txt", "")
    eventually(lambda: web.partitions() == {"numMaterialized": 2, "numFailed": 1, "numPartitions": 3})
    before = cli.json("history", "a.txt")[0]["version"]
    path.write_text(paragraphs("omega", 2))
    (cli.directory / "source" / "empty.txt").unlink()
    (cli.directory / "source" / "b.txt").unlink()
    eventually(lambda: cli.json("history", "a.txt")[0]["version"] > before and cli.json("status")["documents"] == 1)
    assert cli.json("audit")["violations"] == []
