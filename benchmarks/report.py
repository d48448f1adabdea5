"""What a benchmark found: a table for the reader, and a line of JSON for later comparisons."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

Figure = str | int | float


class Report:
    """The figures of one benchmark, as rows with the same names.

    Args:
        title: Names the benchmark in both outputs.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[dict[str, Figure]] = []

    def add(self, **figures: Figure) -> None:
        """Add a row."""
        self.rows.append(figures)

    def show(self, console: Console) -> None:
        """Print the rows as a table."""
        table = Table(title=self.title)
        for name in self.rows[0]:
            table.add_column(name.replace("_", " "), justify="left" if isinstance(self.rows[0][name], str) else "right")
        for row in self.rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
        console.print(table)

    def append_to(self, path: Path) -> None:
        """Append the rows to a file, as one line of JSON."""
        line = {
            "benchmark": self.title,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
            "rows": self.rows,
        }
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
