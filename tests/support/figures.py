"""What the fault tests did, counted while they do it, and the table of it in GUARANTEES.md.

A test run writes ``.figures.json``; ``python -m tests.support.figures`` puts it into the document, with the figures of
a storm and of the mutants where their files lie beside it.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from ingest_pipeline.failpoints import Boundary

ROOT = Path(__file__).parents[2]
TESTS, STORM, MUTANTS = (ROOT / name for name in (".figures.json", ".storm.json", ".mutants.json"))
_DOCUMENT = ROOT / "GUARANTEES.md"
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->"

_counts: Counter[str] = Counter()
_recoveries: list[float] = []
_killed_at: set[str] = set()
_began = time.monotonic()


def count(what: str, number: int = 1) -> None:
    """Add to a figure."""
    _counts[what] += number


def killed_at(place: str) -> None:
    """A process was killed at one side of a boundary."""
    _killed_at.add(place)


@contextmanager
def recovery() -> Generator[None]:
    """Time one recovery."""
    start = time.perf_counter()
    yield
    _recoveries.append(time.perf_counter() - start)


def counted() -> dict[str, Any]:
    """What this process counted, as plain values that travel to the process which writes them."""
    return {"counts": dict(_counts), "recoveries": list(_recoveries), "killed_at": sorted(_killed_at)}


def add(others: dict[str, Any]) -> None:
    """Take in what another process counted."""
    _counts.update(others["counts"])
    _recoveries.extend(others["recoveries"])
    _killed_at.update(others["killed_at"])


def write(passed: int, failed: int) -> None:
    """Keep what was counted."""
    percentiles = quantiles(_recoveries, n=100) if len(_recoveries) > 1 else []
    found = {
        **dict(sorted(_counts.items())),
        "boundaries": len(Boundary),
        "sides of boundaries at which a process was killed": len(_killed_at),
        "tests passed": passed,
        "tests failed": failed,
        "recoveries timed": len(_recoveries),
        "recovery p50, ms": round(1000 * percentiles[49]) if percentiles else None,
        "recovery p99, ms": round(1000 * percentiles[98]) if percentiles else None,
        "wall time, s": round(time.monotonic() - _began),
    }
    TESTS.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Put the newest figures into the document."""
    rows = [("`make test`", name, value) for name, value in _read(TESTS).items()]
    storm = _read(STORM)
    rows += [("storm", "seed", storm["seed"]), ("storm", "wall time, s", storm["seconds"])] if storm else []
    rows += [("storm", name, value) for name, value in storm.get("counts", {}).items()]
    rows += [("storm", "violations", len(storm["violations"]))] if storm else []
    rows += [("`make mutants`", name, value) for name, value in _read(MUTANTS).items()]
    lines = ["| where | what | figure |", "|:---|:---|---:|"]
    lines += [f"| {where} | {name} | {value} |" for where, name, value in rows if value is not None]
    text = _DOCUMENT.read_text()
    table = _BEGIN + "\n".join(lines) + "\n" + _END
    _DOCUMENT.write_text(re.sub(f"{_BEGIN}.*?{_END}", lambda _: table, text, flags=re.DOTALL))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    main()
