"""How fast documents are ingested, next to naive scripts in the same run; then an unchanged run, and one with edits."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import lance
import psycopg

from benchmarks.data.texts import edit, write_documents
from benchmarks.report import Report
from benchmarks.support.endpoint import Endpoint, endpoint
from benchmarks.support.stage import Cost, Job, Stage, stage

LATENCY = 0.05
"""Seconds that the endpoint waits before each answer."""
_ROUNDS = 5
_ONE_EDITED_IN = 100


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    count: int
    size: int


_CASES = [_Case("200 files of 50 KB", 200, 50_000), _Case("5,000 files of 2 KB", 5000, 2000)]
# The naive scripts cut a large file as a whole, which takes them minutes, and the plain one holds 3 GB of Python
# floats; once is enough to say so.
_LARGE = _Case("1 file of 50 MB", 1, 50_000_000)
_NAIVE = ("naive", "naive_tuned")


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest each case with the engine and with the naive scripts, the order reversed from round to round."""
    cases = _CASES if quick else [*_CASES, _LARGE]
    with stage() as surroundings, endpoint(LATENCY) as server:
        for case in cases:
            rounds = 1 if quick or case is _LARGE else _ROUNDS
            source = surroundings.folder / f"source-{case.count}"
            write_documents(source, case.count, case.size)
            _Comparison(report, surroundings, server, case, source).run(step, rounds)


@dataclass(frozen=True, slots=True)
class _Measured:
    cost: Cost
    embedded: int
    """Texts embedded, as the endpoint counted them."""
    needed: int
    """Different texts that had not been there."""


def _texts(job: Job) -> int:
    """Different texts that our catalog ever held; 0 if it is not ours."""
    with psycopg.connect(job.database) as connection:
        try:
            row = connection.execute("SELECT count(DISTINCT text_hash) FROM ingest_pipeline.chunk").fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
    assert row is not None
    return int(row[0])


@dataclass(frozen=True, slots=True)
class _Comparison:
    report: Report
    stage: Stage
    server: Endpoint
    case: _Case
    source: Path

    def run(self, step: Callable[[str], None], rounds: int) -> None:
        found: dict[str, list[_Measured]] = {"ours": [], **{name: [] for name in _NAIVE}}
        for number in range(rounds):
            for name in list(found)[:: -1 if number % 2 else 1]:
                step(f"{self.case.name}: {name}, round {number + 1} of {rounds}")
                job = self._job()
                found[name].append(self._measure(name, job))
                if name == "ours" and number == rounds - 1:
                    self._write_alone(step, job)
                    self._again(step, job)
                shutil.rmtree(job.lancedb)
        self._compare(found)

    def _job(self) -> Job:
        database = self.stage.database()
        folder = self.stage.folder / f"lancedb-{database.rpartition('/')[2]}"
        return Job(str(self.source), database, str(folder), self.server.base_url)

    def _measure(self, name: str, job: Job) -> _Measured:
        before, texts = self.server.embedded(), _texts(job)
        cost = self.stage.run(f"benchmarks.scripts.{name}", job)
        embedded = self.server.embedded() - before
        return _Measured(cost, embedded, _texts(job) - texts if name == "ours" else embedded)

    def _write_alone(self, step: Callable[[str], None], job: Job) -> None:
        """What Lance takes to write the same rows, which are in memory already."""
        step(f"{self.case.name}: the rows with Lance alone")
        folder = self.stage.folder / "alone"
        rows = lance.dataset(f"{job.lancedb}/documents.lance").to_table()
        before, start = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
        lance.write_dataset(rows, str(folder))
        seconds, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        shutil.rmtree(folder)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._add("Lance alone", [_Measured(Cost(seconds, cpu, 0, 0), 0, 0)])

    def _again(self, step: Callable[[str], None], job: Job) -> None:
        step(f"{self.case.name}: unchanged, then edited")
        self._add("ours, unchanged", [self._measure("ours", job)])
        files = sorted(self.source.iterdir())
        for path in files[: -(-len(files) // _ONE_EDITED_IN)]:
            edit(path)
        self._add("ours, 1 % edited", [self._measure("ours", job)])

    def _compare(self, found: dict[str, list[_Measured]]) -> None:
        ours = median(one.cost.seconds for one in found["ours"])
        for name, measured in found.items():
            self._add(name, measured, median(one.cost.seconds for one in measured) / ours)

    def _add(self, who: str, measured: list[_Measured], ratio: float = 0) -> None:
        seconds = median(one.cost.seconds for one in measured)
        size = sum(path.stat().st_size for path in self.source.iterdir())
        self.report.add(
            case=self.case.name,
            who=who,
            seconds=round(seconds, 2),
            mb_s=round(size / seconds / 1e6, 2),
            ours_to_this=f"{ratio:.2f}" if ratio else "-",
            cpu_s=round(median(one.cost.cpu for one in measured), 2),
            postgres_cpu_s=round(median(one.cost.postgres_cpu for one in measured), 2),
            wal_to_text=round(median(one.cost.wal for one in measured) / size, 2),
            peak_mb=round(median(one.cost.peak for one in measured) / 1e6),
            embedded=round(median(one.embedded for one in measured)),
            needed=round(median(one.needed for one in measured)),
            cpu_us_a_chunk=round(median(1e6 * one.cost.cpu / one.needed if one.needed else 0 for one in measured)),
        )
