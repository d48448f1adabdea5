"""Dagster's real daemon and web server, started as a user starts them, watching a folder."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.embedding_server import EmbeddingServer
from tests.support.web_ui import WebUi, eventually
from tests.support.world import paragraphs

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    return Cli.over(tmp_path, database_url, embeddings)


@pytest.fixture
def web(cli: Cli) -> Generator[WebUi]:
    with WebUi.over(cli) as running:
        yield running


def test_files_that_come_change_fail_and_go_are_seen(cli: Cli, web: WebUi) -> None:
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
