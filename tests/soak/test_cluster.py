"""Two workers of a distributed engine finish a backfill, and one of them is killed in the middle."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.maintenance.audit import audit
from tests.support.dagster.cli import environment_of
from tests.support.dagster.cluster import WORKERS, Celery, Cluster
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.ports import free_port
from tests.support.servers.s3 import S3Server
from tests.support.storm.dagster import Dagster
from tests.support.world import paragraphs

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900), pytest.mark.promise("cluster")]
_PATIENCE_SECONDS = 300
# Every second one is wanted: Dagster lets neighbours share a run, and these are to be six.
_WANTED = [f"d{number:02}.txt" for number in range(0, 12, 2)]
_LOCATION = """\
from dagster import EnvVar

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import (
    DagsterOptions,
    build_resources,
    corpus_definitions,
)

settings = CorpusConfig.from_environment()
options = DagsterOptions(source_sensor=False)
defs = corpus_definitions(settings, build_resources(settings, database_url=EnvVar("INGEST_DATABASE_URL")), options)
"""
_MONITORING = """\
concurrency:
  runs:
    max_concurrent_runs: 6
run_monitoring:
  enabled: true
  poll_interval_seconds: 5
  start_timeout_seconds: 60
telemetry:
  enabled: false
"""


def eventually(what: Callable[[], bool], sought: str) -> None:
    end, begun = time.monotonic() + _PATIENCE_SECONDS, time.monotonic()
    while not what():
        assert time.monotonic() < end, f"it did not come true that {sought}"
        time.sleep(0.5)
    print(f"{time.monotonic() - begun:6.1f} s until {sought}")  # noqa: T201  what a soak is run for


class Distributed:
    """A corpus on S3, Dagster, and a cluster that executes its runs."""

    def __init__(self, directory: Path, url: str, cluster: Cluster, dagster: Dagster, settings: CorpusConfig) -> None:
        self.directory, self.cluster, self.dagster, self.settings = directory, cluster, dagster, settings
        self._url = url

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self._url) as connection:
            return connection.execute(query.encode()).fetchall()

    def works_on(self, worker: str) -> bool:
        """Whether a worker is in the middle of a saga."""
        found = self.ask(
            f"SELECT 1 FROM ingest_pipeline.saga WHERE state = 'preparing' AND writer LIKE '{worker}:%'"  # noqa: S608
        )
        return bool(found)

    def open_sagas(self) -> int:
        states = "'preparing', 'prepared'"
        ((count,),) = self.ask(f"SELECT count(*) FROM ingest_pipeline.saga WHERE state IN ({states})")  # noqa: S608
        assert isinstance(count, int)
        return count


@pytest.fixture
def distributed(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Generator[Distributed]:
    if importlib.util.find_spec("dagster_celery") is None or not shutil.which("redis-server"):
        pytest.skip("dagster-celery and redis-server are not installed")
    (tmp_path / "source").mkdir()
    (tmp_path / "location.py").write_text(_LOCATION)
    with S3Server() as s3, EmbeddingServer(latency=3.0) as embeddings:
        environment = environment_of(tmp_path, database_url, embeddings) | s3.env
        environment |= {"INGEST_SOURCE": s3.url("source"), "INGEST_LANCEDB_URI": s3.url("lancedb")}
        environment |= {"DAGSTER_HOME": str(tmp_path / "home"), "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = CorpusConfig.from_environment()
        environment |= _session.dagster_environment(settings)
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", environment["DAGSTER_POSTGRES_URL"])
        cluster = Celery(tmp_path, environment)
        storage = "storage:\n  postgres:\n    postgres_url:\n      env: DAGSTER_POSTGRES_URL\n"
        (tmp_path / "home" / "dagster.yaml").write_text(storage + cluster.launcher + _MONITORING)
        for number in range(12):
            s3.put(f"source/d{number:02}.txt", paragraphs(f"topic-{number}", 3).encode())
        port = free_port()
        command = [sys.executable, "-m", "dagster", "dev", "-m", "location", "-h", "127.0.0.1", "-p", str(port)]
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            instance.add_dynamic_partitions("docs_documents", [f"d{number:02}.txt" for number in range(12)])
        dagster = Dagster({**os.environ, **environment}, tmp_path, port, command)
        try:
            cluster.up()
            dagster.wait_until_up()
            yield Distributed(tmp_path, database_url, cluster, dagster, settings)
        finally:
            dagster.stop()
            cluster.stop()


def test_one_worker_dies_in_the_middle_of_a_backfill_and_the_other_finishes_it(distributed: Distributed) -> None:
    one, two = WORKERS
    dagster = distributed.dagster
    assert dagster.backfill(_WANTED) == "LaunchBackfillSuccess"
    eventually(lambda: distributed.works_on(one) and distributed.works_on(two), "both workers work")
    distributed.cluster.kill(one)
    eventually(lambda: not distributed.works_on(one), "the dead worker's saga is settled")
    eventually(lambda: not dagster.runs_under_way(), "Dagster knows of every run that it has ended")
    missing = sorted(set(_WANTED) - dagster.materialized())
    assert missing
    assert dagster.backfill(missing) == "LaunchBackfillSuccess"
    eventually(lambda: set(_WANTED) <= dagster.materialized(), "every partition is materialized")
    eventually(lambda: not dagster.runs_under_way() and not distributed.open_sagas(), "all is quiet")
    published = distributed.ask(
        "SELECT key, count(*) FROM ingest_pipeline.document "
        "WHERE published_version IS NOT NULL GROUP BY key ORDER BY key"
    )
    assert published == [(key, 1) for key in _WANTED]
    with _session.corpus(distributed.settings) as corpus:
        report = audit(corpus)
    wrong = [violation for violation in report.violations if violation.invariant != "no orphan files"]
    assert (report.documents, wrong) == (len(_WANTED), [])
