"""Growth curves from results: ``python -m benchmarks.pictures results.jsonl docs/images``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Curve:
    column: str
    label: str
    factor: float = 1.0
    """From the column's unit to seconds, where seconds are drawn."""


_BY_SIZE = (
    _Curve("publish_p50_ms", "publish, under the lock", 1e-3),
    _Curve("merge_insert_p50_ms", "LanceDB merge_insert", 1e-3),
    _Curve("plan_s", "plan; an unchanged run"),
    _Curve("sweep_s", "sweep"),
    _Curve("maintain_s", "maintenance, a few edits later"),
    _Curve("audit_s", "audit"),
)
_BY_HISTORY = (
    _Curve("publish_p50_ms", "publish, under the lock", 1e-3),
    _Curve("plan_s", "plan; an unchanged run"),
    _Curve("sweep_s", "sweep"),
)


@click.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(results: Path, folder: Path) -> None:
    """Draw the newest growth benchmarks of a file of results."""
    newest = {entry["benchmark"]: entry["rows"] for entry in map(json.loads, results.read_text().splitlines())}
    for title, rows in newest.items():
        if title.startswith("growth by size"):
            _draw_size(rows, folder / "growth_by_size.png")
        elif title.startswith("growth by"):
            _draw_history(rows, folder / "growth_by_history.png")


def _draw_size(rows: Sequence[_Row], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 5))
    _curves(axes, rows, "rows", _BY_SIZE)
    axes.set(xlabel="rows in the table", ylabel="seconds")
    _finish(figure, [axes], path)


def _draw_history(rows: Sequence[_Row], path: Path) -> None:
    figure, (times, sizes) = plt.subplots(1, 2, figsize=(12, 5))
    for maintenance, style in (("on", "-"), ("off", ":")):
        chosen = [row for row in rows if row["maintenance"] == maintenance]
        _curves(times, chosen, "publications", _BY_HISTORY, suffix=f", maintenance {maintenance}", style=style)
        for column, label in (("used_to_live", "bytes on disk to live bytes"), ("fragments", "fragments")):
            _line(sizes, chosen, "publications", _Curve(column, f"{label}, maintenance {maintenance}"), style)
    times.set(xlabel="publications", ylabel="seconds")
    sizes.set(xlabel="publications")
    _finish(figure, [times, sizes], path)


def _curves(
    axes: Axes, rows: Sequence[_Row], across: str, curves: Iterable[_Curve], *, suffix: str = "", style: str = "-"
) -> None:
    for curve in curves:
        _line(axes, rows, across, _Curve(curve.column, curve.label + suffix, curve.factor), style)


def _line(axes: Axes, rows: Sequence[_Row], across: str, curve: _Curve, style: str) -> None:
    # A time of less than a hundredth of a second was rounded to nothing, which a logarithm cannot show.
    values = [max(float(row[curve.column]) * curve.factor, 0.001) for row in rows]
    axes.plot([row[across] for row in rows], values, style, marker="o", label=curve.label)


def _finish(figure: Any, axes: Sequence[Axes], path: Path) -> None:  # noqa: ANN401  matplotlib's figure
    for one in axes:
        one.set(xscale="log", yscale="log")
        one.grid(visible=True, which="major", alpha=0.3)
        one.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
