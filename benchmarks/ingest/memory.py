"""Memory of the process while one large text file is ingested: it must not grow with the file."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.data.texts import write_document
from benchmarks.report import Report
from benchmarks.support.endpoint import endpoint
from benchmarks.support.stage import Job, stage


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest a file of 50 MB and one of 200 MB; of 5 and 20 MB in a hurry."""
    for megabytes in [5, 20] if quick else [50, 200]:
        _measure(report, step, megabytes)


def run_1gb(report: Report, step: Callable[[str], None], *, quick: bool) -> None:  # noqa: ARG001  nothing of it is quick
    """Ingest a file of 1 GB."""
    _measure(report, step, 1000)


def _measure(report: Report, step: Callable[[str], None], megabytes: int) -> None:
    step(f"memory: a file of {megabytes} MB")
    with stage() as surroundings, endpoint(0) as server:
        source = surroundings.folder / "source"
        source.mkdir()
        write_document(source / "large.txt", megabytes * 1_000_000)
        lancedb = str(surroundings.folder / "lancedb")
        job = Job(str(source), surroundings.database(), lancedb, server.base_url)
        cost = surroundings.run("benchmarks.scripts.ours", job)
        embedded = server.embedded()
    report.add(
        file_mb=megabytes,
        chunks=embedded,
        peak_mb=round(cost.peak / 1e6),
        seconds=round(cost.seconds, 1),
        cpu_s=round(cost.cpu, 1),
        postgres_cpu_s=round(cost.postgres_cpu, 1),
    )
