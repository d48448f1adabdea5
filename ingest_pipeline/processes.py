"""Telling whether the process that wrote something still runs, and ending one with its parent.

Only a process of this machine can be said to be gone.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# Fields of /proc/PID/stat, counted after the command's name.
_STATE, _START_TIME = 0, 19
_ENDED = {"Z", "X"}  # killed, and not yet collected by a parent that may never do so

# Asks the kernel for SIGINT (2) at the parent's death (PR_SET_PDEATHSIG, 1), then becomes the program, unless the
# parent died before that.
_INTERRUPTED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 2)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def interrupted_with_us(arguments: Sequence[str]) -> list[str]:
    """A command line whose program is interrupted once this process is dead, however it died; on Linux only."""
    if sys.platform != "linux":
        return list(arguments)
    return [sys.executable, "-c", _INTERRUPTED, str(os.getpid()), *arguments]


def this_process() -> str:
    """Host, process id and start time: a name that no later process gets."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    fields = _fields(pid)
    return f"{socket.gethostname()}:{pid}:{fields[_START_TIME] if fields else 0}"


def is_gone(process: str) -> bool:
    """Whether a process that named itself so has ended for certain. One of another machine may or may not have."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    pid = int(rest)
    fields = _fields(pid)
    return not fields or fields[_STATE] in _ENDED or f"{host}:{pid}:{fields[_START_TIME]}" != process


def is_elsewhere(process: str) -> bool:
    """Whether a process that named itself so runs, or ran, on another machine, so that nobody here can look."""
    return process.rpartition(":")[0].rpartition(":")[0] != socket.gethostname()


def _fields(pid: int) -> list[str]:
    """What the kernel says of a process; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
