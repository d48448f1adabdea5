"""Runs that Dagster queues, and what they ask of the embedding API at once, all together."""

from __future__ import annotations

from collections.abc import Generator

import psycopg
import pytest

from tests.support.dagster.cli import Cli
from tests.support.dagster.web_ui import WebUi, eventually
from tests.support.servers.embedding_server import EmbeddingServer
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
    default_limit: {limit}
telemetry:
  enabled: false
"""
_AT_WORK_TOGETHER = """\
SELECT max(others) FROM (
    SELECT count(DISTINCT b.run_id) AS others FROM ingest_pipeline.saga a
    JOIN ingest_pipeline.saga b ON a.started_at BETWEEN b.started_at AND b.ended_at AND b.kind = 'ingest'
    WHERE a.kind = 'ingest' GROUP BY a.id
) AS at_its_beginning
"""
_PUBLISHED = """\
SELECT key, count(*) FROM ingest_pipeline.document WHERE published_version IS NOT NULL GROUP BY key ORDER BY key
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]


@pytest.fixture
def embeddings() -> Generator[EmbeddingServer]:
    """So slow that runs which are let in together are seen together."""
    with EmbeddingServer(latency=6.0) as server:
        yield server


@pytest.fixture
def limit() -> int:
    """Of the pool."""
    return 1


@pytest.fixture
def cli(cli: Cli, limit: int) -> Cli:
    home = cli.directory / "state" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(_DAGSTER_YAML.format(limit=limit))
    return cli


def test_all_runs_together_respect_the_pools_limit(cli: Cli, embeddings: EmbeddingServer) -> None:
    for number in range(4):
        cli.put(f"long-{number}.txt", paragraphs(f"long{number}", 4_500))
    with WebUi.over(cli) as web:
        eventually(lambda: _statuses(web) == ["SUCCESS"] * 4)
    assert 0 < embeddings.peak <= _REQUESTS_OF_A_RUN
    assert cli.json("audit")["violations"] == []


@pytest.mark.promise("many-writers")
@pytest.mark.parametrize("limit", [3])
def test_concurrent_runs_on_one_corpus_all_succeed(cli: Cli, embeddings: EmbeddingServer, database_url: str) -> None:
    for number in range(5):
        cli.put(f"long-{number}.txt", paragraphs(f"long{number}", 300))
    with WebUi.over(cli) as web:
        eventually(lambda: _statuses(web) == ["SUCCESS"] * 5)
        assert web.partitions() == {"numMaterialized": 5, "numFailed": 0, "numPartitions": 5}
    with psycopg.connect(database_url) as connection:
        together = connection.execute(_AT_WORK_TOGETHER).fetchone()
        published = connection.execute(_PUBLISHED).fetchall()
    assert together is not None
    assert 2 <= together[0] <= 3, "so many runs were at work at once, at most"
    assert published == [(f"long-{number}.txt", 1) for number in range(5)]
    assert embeddings.peak <= 3 * _REQUESTS_OF_A_RUN
    assert embeddings.embedded == cli.json("status")["chunks"]
    assert cli.json("audit")["violations"] == []


def _statuses(web: WebUi) -> list[str]:
    runs = web.ask("{ runsOrError { ... on Runs { results { status } } } }")["runsOrError"]["results"]
    return [run["status"] for run in runs]
