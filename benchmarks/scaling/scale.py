"""Many small documents through the engine: how time and memory of each command grow with their number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.data.texts import edit, write_document
from benchmarks.report import Report
from benchmarks.scaling.growth import publish_one_by_one
from benchmarks.scripts.command import config_of
from benchmarks.support.endpoint import Endpoint, endpoint
from benchmarks.support.stage import Cost, Job, Stage, stage
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.postgres.database import Database

_BYTES = 2_000
_DIMENSIONS = 256
_EDITED_IN = 100
_PUBLICATIONS = 20
_IN_A_FOLDER = 1000


def run(report: Report, step: Callable[[str], None], *, quick: bool, documents: int) -> None:
    """Ingest documents of 2 KB, then run again, edit, publish and ask; a quarter of them first, to see what grows.

    Args:
        report: Gets a row for each size.
        step: Is called with what is being done.
        quick: Only the larger size.
        documents: The larger size.
    """
    sizes = [documents] if quick else [documents // 4, documents]
    with stage() as surroundings, endpoint(0, _DIMENSIONS) as server:
        for count in sizes:
            _Corpus(report, step, surroundings, server, count).measure()


def key(number: int) -> str:
    """The key of the n-th document, in folders of a thousand."""
    return f"{number // _IN_A_FOLDER:04}/{number:07}.txt"


class _Corpus:
    """A corpus of so many documents."""

    def __init__(
        self, report: Report, step: Callable[[str], None], surroundings: Stage, server: Endpoint, count: int
    ) -> None:
        self._report = report
        self._step = step
        self._stage = surroundings
        self._server = server
        self._count = count
        folder = surroundings.folder / f"scale-{count}"
        self._source = folder / "source"
        lancedb = str(folder / "lancedb")
        self._job = Job(str(self._source), surroundings.database(), lancedb, server.base_url, dimensions=_DIMENSIONS)

    def measure(self) -> None:
        self._write()
        before = self._server.embedded()
        first = self._run("ingest", "first ingest")
        chunks = self._server.embedded() - before
        unchanged = self._run("ingest", "unchanged")
        for number in range(0, self._count, _EDITED_IN):
            edit(self._source / key(number))
        edited = self._run("ingest", "1 % edited")
        published = self._publish()
        asked = {command: self._run(command, command) for command in ("status", "history", "tick")}
        self._report.add(
            documents=self._count,
            chunks=chunks,
            **_figures("ingest", first, self._count),
            **_figures("unchanged", unchanged, self._count),
            **_figures("edited", edited, self._count // _EDITED_IN),
            publish_p50_ms=round(1000 * median(published), 1),
            **{f"{command}_s": round(cost.seconds, 2) for command, cost in asked.items()},
            **{f"{command}_cpu_s": round(cost.cpu + cost.postgres_cpu, 2) for command, cost in asked.items()},
            tick_peak_mb=round(asked["tick"].peak / 1e6),
        )

    def _write(self) -> None:
        self._step(f"scale: writing {self._count:,} documents")
        for number in range(self._count):
            path = self._source / key(number)
            if number % _IN_A_FOLDER == 0:
                path.parent.mkdir(parents=True)
            write_document(path, _BYTES)

    def _run(self, command: str, what: str) -> Cost:
        self._step(f"scale: {self._count:,} documents, {what}")
        return self._stage.run("benchmarks.scripts.command", replace(self._job, command=command))

    def _publish(self) -> list[float]:
        self._step(f"scale: {self._count:,} documents, publishing {_PUBLICATIONS} of them")
        keys = [key(number * (self._count // _PUBLICATIONS)) for number in range(_PUBLICATIONS)]
        for chosen in keys:
            edit(Path(self._job.source) / chosen)
        with Database(self._job.database) as database:
            context = open_context(database, config_of(self._job))
            return asyncio.run(publish_one_by_one(context, self._server, keys, _DIMENSIONS))


def _figures(name: str, cost: Cost, documents: int) -> dict[str, float]:
    """What a run took. CPU is of the process and of Postgres, for each document."""
    return {
        f"{name}_s": round(cost.seconds, 1),
        f"{name}_cpu_us_a_document": round(1e6 * (cost.cpu + cost.postgres_cpu) / documents),
        f"{name}_peak_mb": round(cost.peak / 1e6),
    }
