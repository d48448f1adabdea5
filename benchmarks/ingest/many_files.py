"""Thousands of small files through Dagster's own daemon: by the source sensor, and by a backfill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import dagster as dg
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from benchmarks.data.texts import write_documents
from benchmarks.report import Report
from benchmarks.support.endpoint import MODEL, ROOT, Endpoint, endpoint
from benchmarks.support.stage import Stage, stage
from ingest_pipeline.cli import _dagster, _session
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.run_requests import IN_PROGRESS
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.database import Database

_DIMENSIONS = 256
_LATENCY = 0.05
_BYTES = 2000
_POLL_SECONDS = 0.5
_GIVEN_UP_SECONDS = 1800


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest new files in buckets, then scattered changed ones, then a backfill of files with a partition each."""
    count, changed, backfilled = (1000, 200, 200) if quick else (5000, 1000, 1000)
    with stage() as surroundings, endpoint(_LATENCY, _DIMENSIONS) as server:
        step(f"many files: {count} new in 64 buckets")
        buckets = _Corpus(surroundings, server, "bucket:64", count)
        with buckets.daemon(sensor=True):
            report.add(**buckets.measure(f"{count:,} new files, 64 buckets"))
            step(f"many files: {changed} changed")
            buckets.rewrite(range(0, count, count // changed))
            report.add(**buckets.measure(f"{changed:,} scattered changes, 64 buckets"))
        step(f"many files: backfill of {backfilled}")
        files = _Corpus(surroundings, server, "file", backfilled)
        with files.daemon(sensor=False):
            files.backfill()
            report.add(**files.measure(f"backfill of {backfilled:,} partitions"))


class _Corpus:
    """A folder of files, and a corpus over it that only the daemon works on."""

    def __init__(self, surroundings: Stage, server: Endpoint, scheme: str, count: int) -> None:
        self._folder = surroundings.folder / scheme.replace(":", "-")
        self._source = self._folder / "source"
        self._server = server
        write_documents(self._source, count, _BYTES)
        self._count = count
        self._settings = CorpusConfig.from_environment(
            {
                "INGEST_SOURCE": str(self._source),
                "INGEST_STATE": str(self._folder / "state"),
                "INGEST_DATABASE_URL": surroundings.database(),
                "INGEST_EMBEDDING_MODEL": MODEL,
                "INGEST_EMBEDDING_DIMENSIONS": str(_DIMENSIONS),
                "INGEST_PARTITION_BY": scheme,
                "INGEST_MIN_AGE_SECONDS": "0",
            }
        )
        (self._folder / "state").mkdir(parents=True)
        self._environment = {
            **os.environ,
            **_session.dagster_environment(self._settings),
            "INGEST_EMBEDDING_MODEL": MODEL,
            "INGEST_EMBEDDING_DIMENSIONS": str(_DIMENSIONS),
            "INGEST_PARTITION_BY": scheme,
            "INGEST_MIN_AGE_SECONDS": "0",
            "OPENAI_BASE_URL": server.base_url,
        }

    @contextmanager
    def daemon(self, *, sensor: bool) -> Generator[None]:
        """Dagster's daemon with its code server, as in a deployment."""
        command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-m", "benchmarks.support.location"]
        environment = {**self._environment, "BENCHMARK_SENSOR": "on" if sensor else "off"}
        with (self._folder / "daemon.log").open("ab") as log, _dagster.instance(self._settings) as instance:
            self._instance = instance
            with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log) as process:
                try:
                    yield
                finally:
                    process.terminate()

    def rewrite(self, numbers: Sequence[int]) -> None:
        """Change files all over the folder."""
        for number in numbers:
            (self._source / f"{number:05}.txt").write_text(f"This text is new, and its number is {number}.\n" * 20)

    def backfill(self) -> None:
        """Ask for all partitions at once, as the UI does."""
        graph = build_definitions(self._settings).resolve_asset_graph()
        keys = sorted(path.name for path in self._source.iterdir())
        self._instance.add_dynamic_partitions("documents_documents", keys)
        self._instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=make_new_backfill_id(),
                asset_graph=graph,
                partition_names=keys,
                asset_selection=[dg.AssetKey(["documents", name]) for name in ("chunks", "embeddings", "metadata")],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=self._instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )

    def _is_current(self, database: Database) -> bool:
        page = Planner(open_context(database, self._settings)).page()
        busy = self._instance.get_runs_count(dg.RunsFilter(statuses=IN_PROGRESS))
        return not page.puts and page.latest == self._count and not busy

    def measure(self, case: str) -> dict[str, str | int | float]:
        """Wait until the corpus equals its source and no run is under way; what it took."""
        embedded, runs, publications = self._server.embedded(), self._runs(), self._publications()
        start = perf_counter()
        with Database(self._settings.database_url or "") as database:
            while not self._is_current(database):
                if perf_counter() - start > _GIVEN_UP_SECONDS:
                    raise TimeoutError(f"{case}: not done after {_GIVEN_UP_SECONDS} s; see daemon.log")
                time.sleep(_POLL_SECONDS)
        seconds = perf_counter() - start
        partitions = len(self._instance.get_materialized_partitions(dg.AssetKey(["documents", "metadata"])))
        return {
            "case": case,
            "seconds": round(seconds, 1),
            "partitions": partitions,
            "partitions_a_minute": round(partitions / seconds * 60),
            "runs": self._runs() - runs,
            "publications": self._publications() - publications,
            "embedded": self._server.embedded() - embedded,
        }

    def _runs(self) -> int:
        return self._instance.get_runs_count()

    def _publications(self) -> int:
        with Database(self._settings.database_url or "") as database, database.transaction() as connection:
            return int(reports.totals(connection, "documents")["publications"])
