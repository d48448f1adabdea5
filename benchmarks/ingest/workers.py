"""A first ingest shared by workers: what two processes do in the time of one, and what each costs."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.data.texts import write_documents
from benchmarks.report import Report
from benchmarks.support.endpoint import endpoint
from benchmarks.support.stage import Job, stage

# The endpoint of the benchmarks takes CPU time of its own, so more workers than one core each have nothing to show.
_WORKERS = (1, 2)
_LATENCY = 0.05


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest 100 MB with one process and with two workers; 30 MB in a hurry."""
    documents = 600 if quick else 2000
    with stage() as surroundings, endpoint(_LATENCY) as server:
        source = surroundings.folder / "source"
        write_documents(source, documents, 50_000)
        alone = 0.0
        for workers in _WORKERS:
            step(f"workers: {workers}")
            database = surroundings.database()
            lancedb = str(surroundings.folder / database.rpartition("/")[2])
            before = server.embedded()
            job = Job(str(source), database, lancedb, server.base_url, workers)
            cost = surroundings.run("benchmarks.scripts.command", job)
            chunks = server.embedded() - before
            alone = alone or cost.seconds
            report.add(
                workers=workers,
                seconds=round(cost.seconds, 1),
                times_as_fast=round(alone / cost.seconds, 2),
                chunks=chunks,
                chunks_a_second=round(chunks / cost.seconds),
                cpu_s=round(cost.cpu, 2),
                postgres_cpu_s=round(cost.postgres_cpu, 2),
                cpu_us_a_chunk=round(1e6 * cost.cpu / chunks),
                postgres_cpu_us_a_chunk=round(1e6 * cost.postgres_cpu / chunks),
                log_mb=round(cost.wal / 1e6, 1),
            )
