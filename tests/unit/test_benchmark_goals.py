"""The table of goals: each beside what the benchmarks of the run measured, and nothing that they did not."""

from __future__ import annotations

from benchmarks.goals import add_goals
from benchmarks.report import Figure, Report


def of(*rows: dict[str, Figure]) -> Report:
    report = Report("")
    for row in rows:
        report.add(**row)
    return report


def test_each_goal_is_beside_what_was_measured() -> None:
    edit: dict[str, Figure] = {"edit": "all but the last", "table_kb_p50": 240, "log_kb_p50": 40}
    reports = {
        "edits": of({**edit, "document": "20 MB", "cpu_s_beyond_file_p50": 0.35}),
        "first_ingest": of(
            {"case": "200 files of 50 KB", "who": "ours", "ours_to_this": "1.00", "wal_to_text": 0.6},
            {"case": "200 files of 50 KB", "who": "naive_tuned", "ours_to_this": "0.95", "wal_to_text": 0.1},
        ),
        "workers": of({"workers": 1, "times_as_fast": 1.0}, {"workers": 2, "times_as_fast": 1.7}),
        "memory": of({"file_mb": 50, "peak_mb": 600}, {"file_mb": 200, "peak_mb": 540}),
    }
    table = Report("goals")
    add_goals(table, reports)
    assert [(row["measured"], row["met"]) for row in table.rows] == [
        ("0.28", "yes"),
        ("0.35", "no"),
        ("0.6", "yes"),
        ("0.95", "no"),
        ("1.7", "yes"),
        ("540", "yes"),
    ]
    assert table.rows[1]["goal"] == "at most 0.3"


def test_goals_that_were_not_measured_are_missing() -> None:
    table = Report("goals")
    add_goals(table, {"publish": of({"rows": 1})})
    assert table.rows == []
