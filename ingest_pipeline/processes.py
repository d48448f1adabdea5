"""Telling whether the process that wrote something still runs. Only one of this machine can be said to be gone."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_START_TIME = 19  # the 22nd field of /proc/PID/stat, counted after the command's name


def this_process() -> str:
    """Host, process id and start time: a name that no later process gets."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def is_gone(process: str) -> bool:
    """Whether a process that named itself so has ended for certain. One of another machine may or may not have."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdecimal():
        return False
    pid = int(rest)
    return not Path(f"/proc/{pid}").exists() or f"{host}:{pid}:{_started(pid)}" != process


def _started(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    return status.rpartition(")")[2].split()[_START_TIME]
