"""Telling whether the process that wrote something still runs. Only one of this machine can be said to be gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

# Fields of /proc/PID/stat, counted after the command's name.
_STATE, _START_TIME = 0, 19
_ENDED = {"Z", "X"}  # killed, and not yet collected by a parent that may never do so


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


def _fields(pid: int) -> list[str]:
    """What the kernel says of a process; nothing if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
