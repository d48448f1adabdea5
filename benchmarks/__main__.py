"""Run the benchmarks: ``python -m benchmarks [--quick] [--only NAME] [--json FILE]``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import first_ingest, memory, publish
from benchmarks.report import Report

_BENCHMARKS = {"first_ingest": first_ingest.run, "memory": memory.run, "publish": publish.run}


@click.command()
@click.option("--quick", is_flag=True, help="Smaller sizes and single rounds: under 3 minutes.")
@click.option("--only", type=click.Choice(list(_BENCHMARKS)), multiple=True, help="Run this one. May be repeated.")
@click.option("--json", "results", type=click.Path(dir_okay=False, path_type=Path), help="Append results to this file.")
def main(*, quick: bool, only: tuple[str, ...], results: Path | None) -> None:
    """Measure speed and memory on this machine. Nothing is asserted about them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    for name in only or _BENCHMARKS:
        report = Report(name.replace("_", " ") + (", quick" if quick else ""))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(name)
            _BENCHMARKS[name](report, lambda text: progress.update(task, description=text), quick=quick)  # noqa: B023  called at once
        report.show(console)
        if results is not None:
            report.append_to(results)


if __name__ == "__main__":
    main()
