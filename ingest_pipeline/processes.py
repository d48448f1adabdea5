"""Identities of processes, to find out whether a writer still runs, and the life and garbage of processes.

A process is known to be dead only on the same machine, and in a container only in the same container: another container
may have the same host name, and always has the same process ids. Host name and machine-id identify a machine, since a
clone has the same host name. A process from before the last boot is dead.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import re
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

# The inode of the kernel's first pid namespace (PROC_PID_INIT_INO). A process in another namespace is in a container.
_NO_CONTAINER = "pid:[4026531836]"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_ROOT_LAYER = re.compile(r"^\S+ \S+ \S+ \S+ / .* - overlay .*\bupperdir=([^,\s]+)", re.MULTILINE)
# Fields of /proc/PID/stat, counted after the command's name.
_STATE, _START_TIME = 0, 19
_ENDED = {"Z", "X"}  # dead, but not yet collected by the parent, which may never do so

# M_MMAP_THRESHOLD of glibc.
_MMAP_THRESHOLD = -3
_LARGE_BLOCK_BYTES = 256 << 10
# Names the allocator that Arrow uses.
_ARROW_ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"

_counting_blocks = Lock()
# New objects between two collections of the young ones, and how often those of a generation make one of the next.
_RARE_COLLECTIONS = (50_000, 20, 20)

# Asks the kernel for SIGINT (2) at the parent's death (PR_SET_PDEATHSIG, 1), then executes the program, unless the
# parent has already died.
_DEATH_SIGNAL_PROGRAM = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 2)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def with_parent_death_signal(arguments: Sequence[str]) -> list[str]:
    """A command line that runs a program which gets SIGINT when this process dies, for whatever reason. Linux only."""
    if sys.platform != "linux":
        return list(arguments)
    return [sys.executable, "-c", _DEATH_SIGNAL_PROGRAM, str(os.getpid()), *arguments]


def usable_processors() -> int:
    """Number of processors on which this process may run."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def frozen_heap() -> Generator[None]:
    """Exclude the objects that exist now from garbage collections during the block, and let collections be rare.

    They are the imported libraries, half a million objects. Examining them again and again takes a tenth of the CPU of
    an ingest, and examining the chunks and rows that wait for their publication another tenth. Hardly any of them are
    in cycles. A program that froze its heap before its first block keeps it frozen, and its own thresholds.
    """
    with _counting_blocks:
        is_frozen = is_heap_frozen()
    if is_frozen:
        yield
        return
    with _counting_blocks:
        _heap.enter()
    try:
        yield
    finally:
        with _counting_blocks:
            _heap.leave()


@cache
def map_large_blocks() -> None:
    """Let the C library take blocks of a quarter of a megabyte and more from the system, and give each back when freed.

    By itself glibc stops doing so for blocks up to 32 MB once it has freed one. Vectors and answers of the API would
    then be in its heaps, between small objects that keep these from shrinking. Arrow gets its memory from there too:
    its own allocators keep what each thread has freed, which grows with the number of threads. If the environment
    names an allocator for Arrow, Arrow keeps it.
    """
    import pyarrow as pa  # noqa: PLC0415  a process that ingests nothing does not need it

    set_option: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
    if not os.environ.get(_ARROW_ALLOCATOR):
        pa.set_memory_pool(pa.system_memory_pool())


def release_memory() -> None:
    """Give memory that was freed back to the system.

    The C library keeps what threads have freed, in an arena for each of them, so that a process would grow with each
    group of documents although it uses no more memory. Other C libraries than glibc have no such call.
    """
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


@cache
def is_heap_frozen() -> bool:
    """Whether the program froze its heap before the first call. Only that one counts: it visits each frozen object."""
    return gc.get_freeze_count() > 0


@dataclass(slots=True)
class _Heap:
    """Counts the blocks of all threads that run: the first one freezes the heap, and the last one thaws it."""

    blocks: int = 0
    thresholds: tuple[int, int, int] = (0, 0, 0)
    """Those of the program."""

    def enter(self) -> None:
        self.blocks += 1
        if self.blocks == 1:
            self.thresholds = gc.get_threshold()
            gc.freeze()
            if self.thresholds[0]:  # else the program has turned collections off
                gc.set_threshold(*map(max, self.thresholds, _RARE_COLLECTIONS))

    def leave(self) -> None:
        self.blocks -= 1
        if self.blocks == 0:
            gc.set_threshold(*self.thresholds)
            gc.unfreeze()


_heap = _Heap()


def this_process() -> str:
    """The identity of this process, which no later process gets: machine, boot, process id and start time."""
    return _name(os.getpid())


@cache
def _name(pid: int) -> str:
    fields = _fields(pid)
    return f"{_machine()}:{_boot()}:{pid}:{fields[_START_TIME] if fields else 0}"


def is_dead(process: str) -> bool:
    """Whether the process with this identity has certainly ended. False if the process is on another machine."""
    machine, _, rest = process.partition(":")
    boot, _, rest = rest.partition(":")
    pid, _, start = rest.partition(":")
    if machine != _machine() or not pid.isdecimal():
        return False
    fields = _fields(int(pid))
    return boot != _boot() or not fields or fields[_STATE] in _ENDED or fields[_START_TIME] != start


def is_running(pid: int) -> bool:
    """Whether a process with this id is running on this machine, or in this container."""
    fields = _fields(pid)
    return bool(fields) and fields[_STATE] not in _ENDED


def is_remote(process: str) -> bool:
    """Whether the process with this identity is on another machine, so that its state cannot be read here."""
    return process.partition(":")[0] != _machine()


def _machine() -> str:
    """The host name plus the identity of the container or the machine, because host names are not unique."""
    return f"{socket.gethostname()}/{_container(os.getpid()) or _identity()}"


def _identity() -> str:
    """The machine's identity, which does not change at a reboot; without a machine-id, the identity of this boot."""
    return _digest(_read("/etc/machine-id").strip() or _read(_BOOT_ID))


def _boot() -> str:
    return _digest(_read(_BOOT_ID))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _container(pid: int) -> str:
    """The identity of a process' container, which does not change at its restart. Empty: no container."""
    try:
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
    if namespace == _NO_CONTAINER:
        return ""
    # Two running containers have different layers under their roots. Without layers, a restart changes the identity.
    layer = _ROOT_LAYER.search(_read(f"/proc/{pid}/mountinfo"))
    unique = layer[1] if layer else namespace
    # Includes the boot, since neither is unique among machines: after a reboot an old container is not recognised.
    return _digest(_read(_BOOT_ID) + unique)


def _fields(pid: int) -> list[str]:
    """The kernel's status fields of a process; empty if there is no such process."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
