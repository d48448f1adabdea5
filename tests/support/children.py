"""Child processes of a test, or of a benchmark."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """The pids of the children of this process."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread ended just now
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def chunking_processes() -> set[int]:
    """The pids of the children that cut texts."""
    return {pid for pid in children() if b"chunking/worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
