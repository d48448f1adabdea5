"""Child processes of a test."""

from __future__ import annotations

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
