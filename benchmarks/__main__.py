"""Run the benchmarks: ``python -m benchmarks [--quick] [--only NAME] [--json FILE]``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.goals import add_goals
from benchmarks.ingest import (
    edits,
    events,
    first_ingest,
    fullness,
    many_files,
    memory,
    recovery,
    saturation,
    workers,
)
from benchmarks.report import Report
from benchmarks.scaling import comparison, growth, publish, scale
from benchmarks.search import retrieval, search


class Benchmark(Protocol):
    """Adds rows with the same names to a report."""

    def __call__(self, report: Report, step: Callable[[str], None], *, quick: bool) -> None:
        """Measure. ``step`` says what is going on; ``quick`` asks for smaller sizes and single rounds."""


# One line each. What takes many minutes or gigabytes is in the second list, and runs if it is named.
_BENCHMARKS: dict[str, Benchmark] = {
    "comparison": comparison.run,
    "first_ingest": first_ingest.run,
    "workers": workers.run,
    "saturation": saturation.run,
    "fullness": fullness.run,
    "edits": edits.run,
    "retrieval": retrieval.run,
    "recovery": recovery.run,
    "many_files": many_files.run,
    "memory": memory.run,
    "publish": publish.run,
    "events": events.run,
    "growth_by_size": growth.by_size,
    "growth_by_history": growth.by_history,
    "search": search.run,
}
_WHEN_NAMED: dict[str, Benchmark] = {
    "memory_1gb": memory.run_1gb,
    "memory_1gb_in_documents": memory.run_1gb_in_documents,
    "growth_by_long_history": growth.by_long_history,
    "edits_200mb": edits.run_200mb,
    "search_million": search.run_million,
}
_SIZED = ("scale", "publish_rows")
"""Those whose size is an argument. They run if they are named."""


@click.command()
@click.option("--quick", is_flag=True, help="Smaller sizes and single rounds: under 3 minutes.")
@click.option(
    "--only",
    type=click.Choice([*_BENCHMARKS, *_WHEN_NAMED, *_SIZED]),
    multiple=True,
    help="Run this one. May be repeated.",
)
@click.option("--documents", default=20_000, show_default=True, help="Documents of the benchmark scale.")
@click.option("--rows", default=1_000_000, show_default=True, help="Rows of the benchmark publish_rows.")
@click.option("--json", "results", type=click.Path(dir_okay=False, path_type=Path), help="Append results to this file.")
def main(*, quick: bool, only: tuple[str, ...], documents: int, rows: int, results: Path | None) -> None:
    """Measure speed and memory on this machine. Nothing is asserted about them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    sized: dict[str, Benchmark] = {
        "scale": partial(scale.run, documents=documents),
        "publish_rows": partial(publish.run_rows, rows=rows),
    }
    known = {**_BENCHMARKS, **_WHEN_NAMED, **sized}
    reports: dict[str, Report] = {}
    for name in only or _BENCHMARKS:
        reports[name] = report = Report(name.replace("_", " ") + (", quick" if quick else ""))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(name)
            known[name](report, lambda text: progress.update(task, description=text), quick=quick)  # noqa: B023  called at once
        _show(report, console, results)
    goals = Report("goals")
    add_goals(goals, reports)
    if goals.rows:
        _show(goals, console, results)


def _show(report: Report, console: Console, results: Path | None) -> None:
    report.show(console)
    if results is not None:
        report.append_to(results)


if __name__ == "__main__":
    main()
