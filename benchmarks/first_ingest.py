"""How fast documents are ingested, next to naive scripts in the same run; then an unchanged run, and one with edits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.endpoint import Endpoint, endpoint
from benchmarks.report import Report
from benchmarks.stage import Cost, Job, Stage, stage
from benchmarks.texts import edit, write_documents

LATENCY = 0.05
"""Seconds that the endpoint waits before each answer."""
_ROUNDS = 3
_ONE_EDITED_IN = 100


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    count: int
    size: int
    naive: tuple[str, ...] = ("naive", "naive_tuned")


_CASES = [_Case("200 files of 50 KB", 200, 50_000), _Case("2,000 files of 2 KB", 2000, 2000)]
# The naive script cuts a large file as a whole, which takes it minutes; once is enough to say so.
_LARGE = _Case("1 file of 20 MB", 1, 20_000_000, ("naive_tuned",))


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
class _Comparison:
    report: Report
    stage: Stage
    server: Endpoint
    case: _Case
    source: Path

    def run(self, step: Callable[[str], None], rounds: int) -> None:
        found: dict[str, list[tuple[Cost, int]]] = {"ours": [], **{name: [] for name in self.case.naive}}
        for number in range(rounds):
            for name in list(found)[:: -1 if number % 2 else 1]:
                step(f"{self.case.name}: {name}, round {number + 1} of {rounds}")
                job = self._job()
                found[name].append(self._measure(name, job))
                if name == "ours" and number == rounds - 1:
                    self._again(step, job)
                shutil.rmtree(job.lancedb)
        self._compare(found)

    def _job(self) -> Job:
        database = self.stage.database()
        folder = self.stage.folder / f"lancedb-{database.rpartition('/')[2]}"
        return Job(str(self.source), database, str(folder), self.server.base_url)

    def _measure(self, name: str, job: Job) -> tuple[Cost, int]:
        before = self.server.bought()
        cost = self.stage.run(f"benchmarks.{name}", job)
        return cost, self.server.bought() - before

    def _again(self, step: Callable[[str], None], job: Job) -> None:
        step(f"{self.case.name}: unchanged, then edited")
        self._add("ours, unchanged", [self._measure("ours", job)])
        files = sorted(self.source.iterdir())
        for path in files[: -(-len(files) // _ONE_EDITED_IN)]:
            edit(path)
        self._add("ours, 1 % edited", [self._measure("ours", job)])

    def _compare(self, found: dict[str, list[tuple[Cost, int]]]) -> None:
        ours = median(cost.seconds for cost, _ in found["ours"])
        for name, measured in found.items():
            self._add(name, measured, median(cost.seconds for cost, _ in measured) / ours)

    def _add(self, who: str, measured: list[tuple[Cost, int]], ratio: float = 0) -> None:
        seconds = median(cost.seconds for cost, _ in measured)
        size = sum(path.stat().st_size for path in self.source.iterdir())
        self.report.add(
            case=self.case.name,
            who=who,
            seconds=round(seconds, 2),
            mb_s=round(size / seconds / 1e6, 2),
            ours_to_this=f"{ratio:.2f}" if ratio else "-",
            cpu_s=round(median(cost.cpu for cost, _ in measured), 2),
            postgres_cpu_s=round(median(cost.postgres_cpu for cost, _ in measured), 2),
            peak_mb=round(median(cost.peak for cost, _ in measured) / 1e6),
            bought=round(median(bought for _, bought in measured)),
        )
