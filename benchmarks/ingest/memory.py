"""Memory of the process during a first ingest: it must not grow with the size of a file, nor with their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.data.texts import write_document
from benchmarks.report import Report
from benchmarks.support.endpoint import endpoint
from benchmarks.support.stage import Job, stage

_FOLDER_DOCUMENTS = 1000


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest a file of 50 MB and one of 200 MB; of 5 and 20 MB in a hurry."""
    for megabytes in [5, 20] if quick else [50, 200]:
        _measure(report, step, 1, megabytes * 1_000_000)


def run_1gb(report: Report, step: Callable[[str], None], *, quick: bool) -> None:  # noqa: ARG001  nothing of it is quick
    """Ingest a file of 1 GB."""
    _measure(report, step, 1, 1_000_000_000)


def run_1gb_in_documents(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """Ingest 1 GB in documents of 50 KB; a tenth of it in a hurry."""
    _measure(report, step, 2000 if quick else 20_000, 50_000)


def _measure(report: Report, step: Callable[[str], None], documents: int, size: int) -> None:
    megabytes = documents * size // 1_000_000
    step(f"memory: {megabytes} MB in {documents} files")
    with stage() as surroundings, endpoint(0) as server:
        source = surroundings.folder / "source"
        for number in range(documents):
            write_document(_path(source, number), size)
        lancedb = str(surroundings.folder / "lancedb")
        job = Job(str(source), surroundings.database(), lancedb, server.base_url)
        cost = surroundings.run("benchmarks.scripts.command", job)
        embedded = server.embedded()
    report.add(
        files=documents,
        text_mb=megabytes,
        chunks=embedded,
        peak_mb=round(cost.peak / 1e6),
        seconds=round(cost.seconds, 1),
        cpu_s=round(cost.cpu, 1),
        postgres_cpu_s=round(cost.postgres_cpu, 1),
    )


def _path(source: Path, number: int) -> Path:
    folder = source / f"{number // _FOLDER_DOCUMENTS:04}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{number:07}.txt"
