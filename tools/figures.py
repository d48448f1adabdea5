"""Figures of the fault tests, counted while they run, and their tables in docs/evidence.md.

A run of all tests, or of all tests marked ``soak``, writes a file; so do a storm and the mutants.
``python -m tools.figures`` puts the existing files into the document.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from ingest_pipeline.failpoints import Boundary

ROOT = Path(__file__).parents[1]
STORM, MUTANTS = ROOT / ".storm.json", ROOT / ".mutants.json"
_TESTS = {"`make test`": ROOT / ".figures.json", "`make soak`": ROOT / ".soak.json"}
_DOCUMENT = ROOT / "docs" / "evidence.md"
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->"

_counts: Counter[str] = Counter()
_recoveries: list[float] = []
_killed_at: set[str] = set()
_began = time.monotonic()


def count(what: str, number: int = 1) -> None:
    """Add to a figure."""
    _counts[what] += number


def killed_at(side: str) -> None:
    """Record that a process was killed at one side of a boundary."""
    _killed_at.add(side)


@contextmanager
def recovery() -> Generator[None]:
    """Time one recovery."""
    start = time.perf_counter()
    yield
    _recoveries.append(time.perf_counter() - start)


def counted() -> dict[str, Any]:
    """The figures of this process, as plain values for the process that writes them."""
    return {"counts": dict(_counts), "recoveries": list(_recoveries), "killed_at": sorted(_killed_at)}


def add(others: dict[str, Any]) -> None:
    """Add the figures of another process."""
    _counts.update(others["counts"])
    _recoveries.extend(others["recoveries"])
    _killed_at.update(others["killed_at"])


def write(passed: int, failed: int, *, soak: bool) -> None:
    """Write the figures into their file."""
    percentiles = quantiles(_recoveries, n=100) if len(_recoveries) > 1 else []
    found = {
        "commit": commit(),
        "tests: passed": passed,
        "tests: failed": failed,
        "wall time, s": round(time.monotonic() - _began),
        "boundaries": len(Boundary),
        "boundaries: sides at which a process was killed": len(_killed_at),
        **dict(sorted(_counts.items())),
        "recovery: timed": len(_recoveries),
        "recovery: p50 in ms": round(1000 * percentiles[49]) if percentiles else None,
        "recovery: p99 in ms": round(1000 * percentiles[98]) if percentiles else None,
    }
    _TESTS["`make soak`" if soak else "`make test`"].write_text(json.dumps(found, indent=2) + "\n")


def commit() -> str:
    """The commit of the figures; a plus sign means uncommitted changes."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Put the newest figures into the document."""
    tests = {column: _grouped(_read(path)) for column, path in _TESTS.items() if path.exists()}
    names = dict.fromkeys(name for figures in tests.values() for name in figures)
    lines = ["| | " + " | ".join(tests) + " |", "|:---|" + "---:|" * len(tests)]
    lines += [f"| {name} | " + " | ".join(tests[column].get(name, "") for column in tests) + " |" for name in names]
    lines += ["", "| storm | |", "|:---|:---|"]
    lines += [f"| {name} | {figures} |" for name, figures in _grouped(_storm()).items()]
    lines += ["", *(f"{name.capitalize()}: {figures}." for name, figures in _grouped(_read(MUTANTS)).items())]
    table = _BEGIN + "\n".join(lines) + "\n" + _END
    _DOCUMENT.write_text(re.sub(f"{_BEGIN}.*?{_END}", lambda _: table, _DOCUMENT.read_text(), flags=re.DOTALL))


def _storm() -> dict[str, Any]:
    found = _read(STORM)
    violations = {"violations": len(found["violations"])} if found else {}
    return (
        {key: found[key] for key in ("commit", "seed", "seconds") if key in found}
        | violations
        | found.get("counts", {})
    )


def _grouped(figures: dict[str, Any]) -> dict[str, str]:
    """One line for figures with the same words before a colon: ``{"killed": "run worker: 23; command line: 22"}``."""
    lines: dict[str, list[str]] = {}
    for name, value in figures.items():
        group, _, kind = name.partition(": ")
        if value is not None:
            lines.setdefault(group, []).append(f"{kind}: {value}" if kind else str(value))
    return {group: "; ".join(found) for group, found in lines.items()}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
