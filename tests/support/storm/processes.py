"""Finds, signals and reaps the processes that a storm started, and no others."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_DYING_SECONDS = 10.0
_WORK = "work:"
"""Begins the name of a process that waits for a preloaded one. The rest is the number of the other."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that every descendant can be found."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def descendants(of: int) -> list[int]:
    """Every living descendant of a process, the deepest last.

    A process that does the work of another one is below that one, see `tests.support.dagster.preloaded`.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    living: set[int] = set()
    for pid, parent, state, works in _processes():
        children[parent].append(pid)
        if works:
            children[pid].append(works)
        if state != "Z":
            living.add(pid)
    found: list[int] = []
    pending = [of]
    while pending:
        # Zombies are included: a process' parent may have died before the parent was examined.
        below = children[pending.pop(0)]
        found += below
        pending += below
    return [pid for pid in found if pid in living]


def kill_below(of: int) -> None:
    """SIGKILL all descendants of a process, the deepest first, including those that are being started."""
    end = time.monotonic() + _DYING_SECONDS
    while (left := descendants(of)) and time.monotonic() < end:
        for pid in reversed(left):
            send(pid, signal.SIGKILL)
        time.sleep(0.05)


def run_workers(dagster: int) -> list[int]:
    """The processes in which Dagster runs jobs, below the process of its web server and daemon.

    Dagster's code server starts each with multiprocessing's spawn. The resource tracker of multiprocessing is excluded.
    """
    works = {pid: other for pid, _, _, other in _processes() if other}
    return [works.get(pid, pid) for pid in descendants(dagster) if b"spawn_main" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a descendant; False if it has ended, or is no descendant."""
    with suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            # Checked while the handle is open, so the number cannot be given to another process in between.
            if pid in descendants(os.getpid()):
                signal.pidfd_send_signal(handle, number)
                return True
        finally:
            os.close(handle)
    return False


class Reaper:
    """Reaps adopted orphans, which would otherwise seem alive to a check of whether a writer is dead."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def spare(self, pid: int) -> None:
        """Do not reap a process, because another thread waits for it."""
        self._ours.add(pid)

    def _work(self) -> None:
        seen: set[int] = set()
        while not self._ended.wait(0.5):
            dead = {pid for pid, parent, state, _ in _processes() if state == "Z" and parent == os.getpid()}
            # In two rounds, because a process may die before the thread that started it could call `spare`.
            for pid in (dead & seen) - self._ours:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            seen = dead


def _processes() -> Iterator[tuple[int, int, str, int]]:
    """Number, parent and state of every process, and the number of the process that does its work, else 0."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                head, _, tail = (entry / "stat").read_text().rpartition(")")
                state, parent = tail.split()[:2]
                name = head.partition("(")[2]
                works = name.removeprefix(_WORK)
                yield int(entry.name), int(parent), state, int(works) if works != name and works.isdecimal() else 0
