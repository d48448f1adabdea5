"""The goals of the project as ratios, each beside what the other benchmarks of the same run measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.report import Figure, Report

_Row = Mapping[str, Figure]
Reports = Mapping[str, Report]
"""Reports by the names of their benchmarks."""


@dataclass(frozen=True, slots=True)
class _Goal:
    what: str
    goal: str
    benchmarks: tuple[str, ...]
    """The first of them that ran has the figure."""
    measured: Callable[[Report], Figure | None]
    is_met: Callable[[float], bool]


def add_goals(report: Report, reports: Reports) -> None:
    """Add a row for each goal that was measured."""
    for goal in _GOALS:
        found = [goal.measured(reports[name]) for name in goal.benchmarks if name in reports]
        measured = next((float(figure) for figure in found if figure is not None), None)
        if measured is not None:
            met = "yes" if goal.is_met(measured) else "no"
            report.add(what=goal.what, goal=goal.goal, measured=f"{measured:,g}", met=met)


def _row(report: Report, **wanted: Figure) -> _Row | None:
    return next((row for row in report.rows if all(row.get(name) == value for name, value in wanted.items())), None)


def _figure(column: str, **wanted: Figure) -> Callable[[Report], Figure | None]:
    def measured(report: Report) -> Figure | None:
        row = _row(report, **wanted)
        return None if row is None else row[column]

    return measured


def _edited_bytes(document: str) -> Callable[[Report], Figure | None]:
    def measured(report: Report) -> Figure | None:
        row = _row(report, document=document, edit="all but the last")
        return None if row is None else (float(row["table_kb_p50"]) + float(row["log_kb_p50"])) / 1000

    return measured


def _last(column: str) -> Callable[[Report], Figure | None]:
    return lambda report: report.rows[-1][column]


def _at_least(least: float) -> Callable[[float], bool]:
    return lambda figure: figure >= least


def _at_most(most: float) -> Callable[[float], bool]:
    return lambda figure: figure <= most


_SMALL, _LARGE = "5,000 files of 2 KB", "200 files of 50 KB"
_WORKERS_SPEED = 1.6
_MEMORY_MB = 542
_GOALS = [
    *(
        goal
        for size, most, seconds in (("20 MB", 1.0, 0.3), ("200 MB", 5.0, 2.0))
        for goal in (
            _Goal(
                f"edit of {size}: MB written in both stores",
                f"at most {most:g}",
                ("edits", "edits_200mb"),
                _edited_bytes(size),
                _at_most(most),
            ),
            _Goal(
                f"edit of {size}: CPU seconds beyond the file",
                f"at most {seconds:g}",
                ("edits", "edits_200mb"),
                _figure("cpu_s_beyond_file_p50", document=size, edit="all but the last"),
                _at_most(seconds),
            ),
        )
    ),
    *(
        _Goal(
            f"bytes of Postgres' log to bytes of text, {case}",
            "at most 1",
            ("first_ingest",),
            _figure("wal_to_text", case=case, who="ours"),
            _at_most(1),
        )
        for case in (_LARGE, _SMALL)
    ),
    *(
        _Goal(
            f"rate of ours to that of the tuned script, {case}",
            f"at least {least:g}",
            ("first_ingest",),
            _figure("ours_to_this", case=case, who="naive_tuned"),
            _at_least(least),
        )
        for case, least in ((_LARGE, 1.0), (_SMALL, 0.9))
    ),
    _Goal(
        "two workers: times as fast as one process",
        f"at least {_WORKERS_SPEED}",
        ("workers",),
        _figure("times_as_fast", workers=2),
        _at_least(_WORKERS_SPEED),
    ),
    _Goal("fill of chunks of prose", "at least 0.8", ("fullness",), _last("fill"), _at_least(0.8)),
    _Goal("chunks that an edit changes, p50", "at most 1", ("fullness",), _last("changed_p50"), _at_most(1)),
    _Goal("chunks that an edit changes, p95", "at most 3", ("fullness",), _last("changed_p95"), _at_most(3)),
    *(
        _Goal(what, f"at most {_MEMORY_MB}", (name,), _last("peak_mb"), _at_most(_MEMORY_MB))
        for what, name in (
            ("memory for a file of 1 GB, MB", "memory_1gb"),
            ("memory for 1 GB in documents of 50 KB, MB", "memory_1gb_in_documents"),
            ("memory for the larger of two files below 1 GB, MB", "memory"),
        )
    ),
]
