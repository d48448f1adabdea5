"""The figures of a storm: counters, and violations with their evidence, as a table and as JSON."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.figures import commit

_SHOWN = 20


class Figures:
    """Counters and violations, for use by many threads.

    Args:
        seed: Seed of all random choices.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._began = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._violations: list[str] = []
        self._notes: list[str] = []
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def violations(self) -> list[str]:
        with self._lock:
            return list(self._violations)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter. Counters with the same words before a colon form a group."""
        with self._lock:
            self._counts[what] += number

    def total(self, group: str) -> int:
        """The sum of the counters that begin with these words."""
        with self._lock:
            return sum(number for what, number in self._counts.items() if what.startswith(group))

    def longest(self, what: str, seconds: float) -> None:
        """Keep the longest of several times."""
        with self._lock:
            self._counts[what] = max(self._counts[what], math.ceil(seconds))

    def violation(self, what: str) -> None:
        """Record that a promise was broken."""
        with self._lock:
            self._violations.append(f"{self.seconds:.1f} s: {what}")
            first = len(self._violations) <= _SHOWN
        if first:
            Console(stderr=True).print(f"VIOLATION {what}", style="red", markup=False, highlight=False)

    def note(self, what: str) -> None:
        """Record an observation that breaks no promise but should be examined."""
        with self._lock:
            if what not in self._notes:
                self._notes.append(what)

    def write(self, path: Path) -> None:
        """Write all figures as JSON."""
        with self._lock:
            value = {
                "commit": commit(),
                "seed": self.seed,
                "seconds": round(self.seconds, 1),
                "counts": dict(sorted(self._counts.items())),
                "violations": self._violations,
                "notes": self._notes,
            }
            path.write_text(json.dumps(value, indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print all figures."""
        table = Table("what happened", "", title=f"storm, seed {self.seed}", show_lines=False)
        table.columns[1].justify = "right"
        with self._lock:
            for what, number in sorted(self._counts.items()):
                table.add_row(what, f"{number:,}")
            table.add_row("wall time", f"{self.seconds:.0f} s")
            table.add_row("violations", str(len(self._violations)), style="red" if self._violations else "green")
        console.print(table)
        for note in self._notes[:_SHOWN]:
            console.print(f"note: {note}", markup=False, highlight=False)
        for violation in self._violations[:_SHOWN]:
            console.print(f"violation at {violation}", style="red", markup=False, highlight=False)
