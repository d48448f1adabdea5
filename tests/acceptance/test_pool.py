"""Runs that Dagster queues, and what they ask of the embedding API at once, all together."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.embedding_server import EmbeddingServer
from tests.support.web_ui import WebUi, eventually
from tests.support.world import paragraphs

_REQUESTS_OF_A_RUN = 16
# More runs may be under way than the pool lets in.
_DAGSTER_YAML = """\
storage:
  postgres:
    postgres_url:
      env: DAGSTER_POSTGRES_URL
concurrency:
  runs:
    max_concurrent_runs: 4
  pools:
    granularity: run
    default_limit: 1
telemetry:
  enabled: false
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]


@pytest.fixture
def embeddings() -> Generator[EmbeddingServer]:
    """So slow that runs which are let in together are seen together."""
    with EmbeddingServer(latency=6.0) as server:
        yield server


@pytest.fixture
def cli(tmp_path: Path, database_url: str, embeddings: EmbeddingServer) -> Cli:
    cli = Cli.over(tmp_path, database_url, embeddings)
    home = tmp_path / "state" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(_DAGSTER_YAML)
    return cli


def test_all_runs_together_ask_no_more_than_the_pool_lets_in(cli: Cli, embeddings: EmbeddingServer) -> None:
    for number in range(4):
        cli.put(f"long-{number}.txt", paragraphs(f"long{number}", 4_500))
    with WebUi.over(cli) as web:
        eventually(lambda: _statuses(web) == ["SUCCESS"] * 4)
    assert 0 < embeddings.peak <= _REQUESTS_OF_A_RUN
    assert cli.json("audit")["violations"] == []


def _statuses(web: WebUi) -> list[str]:
    runs = web.ask("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
    return [run["status"] for run in runs]
