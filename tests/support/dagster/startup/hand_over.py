"""Let a process that has all imports fork a child that does the work of this process, which waits for it.

The child has the arguments, environment, working folder and open files of this process. Signals are forwarded to it.
Its exit status becomes the one of this process, and it dies if this process is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
from types import FrameType

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LENGTH_BYTES = 8
_WORKER = "import sys;exec(eval(sys.stdin.readline()))"
"""The program of each process of pytest-xdist, which gets the rest from the process that started it."""
_FORK_SERVER = "multiprocessing.forkserver"


def to_preloaded_python(address: str) -> None:
    """Return only if this process must do its work itself.

    Args:
        address: Name of the abstract socket of `tests.support.dagster.preloaded`.
    """
    arguments = _without_flags(sys.orig_argv[1:])
    if "MUTANT" in os.environ or not _is_wanted(arguments):  # an import reads the variable
        return
    files = _open_files()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(f"\0{address}")
    except OSError:
        server.close()
        return
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109  pathlib takes a hundredth of a second to import
        "path": sys.path,
        "files": files,
    }
    body = json.dumps(request).encode()
    socket.send_fds(server, [len(body).to_bytes(_LENGTH_BYTES, "big")], files)
    server.sendall(body)
    for descriptor in files[3:]:
        os.close(descriptor)  # the reader at the other end of a pipe waits until all writers have closed it
    child = int.from_bytes(_receive(server), "big")
    with open("/proc/self/comm", "w") as name:  # noqa: PTH123  as above
        name.write(f"work:{child}")  # for those who look for the process that does the work

    def forward(number: int, _: FrameType | None) -> None:
        os.kill(child, number)

    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    status = int.from_bytes(_receive(server), "big")
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _without_flags(arguments: list[str]) -> list[str]:
    """The arguments from the program on, for those programs that pytest-xdist and multiprocessing start with flags."""
    at = arguments.index("-c") if "-c" in arguments else 0
    flags, program = arguments[:at], arguments[at + 1 : at + 2]
    is_known = program == [_WORKER] or any(_FORK_SERVER in text for text in program)
    return arguments[at:] if is_known and all(flag.startswith("-") for flag in flags) else arguments


def _is_wanted(arguments: list[str]) -> bool:
    """Whether the preloaded modules are those that the process would import."""
    match arguments:
        case ["-m", module, *_]:
            return module.partition(".")[0] in {"dagster", "dagster_webserver", "ingest_pipeline"}
        case ["-c", program, *_]:
            names = ("dagster", "multiprocessing.spawn", _FORK_SERVER, _WORKER)
            return any(name in program for name in names)
        case [script, *_]:
            return os.path.basename(script) in {"dagster", "dg", "ingest-pipeline"}  # noqa: PTH119  as above
        case _:
            return False


def _open_files() -> list[int]:
    """The descriptors that this process inherited: all that are open when it starts and can be inherited further."""
    found = {0, 1, 2}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  as above
        try:
            flags = fcntl.fcntl(int(name), fcntl.F_GETFD)
        except OSError:
            continue  # it was open to list the folder
        if not flags & fcntl.FD_CLOEXEC:
            found.add(int(name))
    return sorted(found)


def _receive(server: socket.socket) -> bytes:
    answer = server.recv(_LENGTH_BYTES)
    if not answer:
        os._exit(70)  # the preloaded process is gone, and the child with it
    return answer
