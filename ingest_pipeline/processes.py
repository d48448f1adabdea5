"""Telling whether the process that wrote something still runs, and ending one with its parent.

Only a process of this machine can be said to be gone, and in a container only one of the same container: another may
have the same host name, and always has the same process ids. A machine is its host name and its machine-id, since a
clone has the same name; what ran before it was booted is gone.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# The inode of the kernel's first pid namespace (PROC_PID_INIT_INO); whoever has another is in a container.
_NO_CONTAINER = "pid:[4026531836]"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_ROOT_LAYER = re.compile(r"^\S+ \S+ \S+ \S+ / .* - overlay .*\bupperdir=([^,\s]+)", re.MULTILINE)
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


def with_parent_death_signal(arguments: Sequence[str]) -> list[str]:
    """A command line whose program is interrupted once this process is dead, however it died; on Linux only."""
    if sys.platform != "linux":
        return list(arguments)
    return [sys.executable, "-c", _INTERRUPTED, str(os.getpid()), *arguments]


def this_process() -> str:
    """Machine, boot, process id and start time: a name that no later process gets."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    fields = _fields(pid)
    return f"{_machine()}:{_boot()}:{pid}:{fields[_START_TIME] if fields else 0}"


def is_dead(process: str) -> bool:
    """Whether a process that named itself so has ended for certain. One of another machine may or may not have."""
    machine, _, rest = process.partition(":")
    boot, _, rest = rest.partition(":")
    pid, _, start = rest.partition(":")
    if machine != _machine() or not pid.isdecimal():
        return False
    fields = _fields(int(pid))
    return boot != _boot() or not fields or fields[_STATE] in _ENDED or fields[_START_TIME] != start


def is_running(pid: int) -> bool:
    """Whether this machine, or this container, has a process of this id that has not ended."""
    fields = _fields(pid)
    return bool(fields) and fields[_STATE] not in _ENDED


def is_remote(process: str) -> bool:
    """Whether a process that named itself so runs, or ran, on another machine, so that nobody here can look."""
    return process.partition(":")[0] != _machine()


def _machine() -> str:
    """The host's name, and what tells the machine, and in a container the container, from others of that name."""
    return f"{socket.gethostname()}/{_container(os.getpid()) or _identity()}"


def _identity() -> str:
    """Of the machine, also after it is booted anew; of this boot only, if the machine has no identity."""
    return _digest(_read("/etc/machine-id").strip() or _read(_BOOT_ID))


def _boot() -> str:
    return _digest(_read(_BOOT_ID))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _container(pid: int) -> str:
    """Which container a process is in: the same after a restart in place, another for any other. Empty: in none."""
    try:
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
    if namespace == _NO_CONTAINER:
        return ""
    # Two that run at once have each a layer of their own under their roots. Without layers, a restart makes another.
    layer = _ROOT_LAYER.search(_read(f"/proc/{pid}/mountinfo"))
    place = layer[1] if layer else namespace
    # With the boot, since neither is unique among machines: of a container that is gone after a reboot, nobody says so.
    return _digest(_read(_BOOT_ID) + place)


def _fields(pid: int) -> list[str]:
    """What the kernel says of a process; nothing if there is none."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
