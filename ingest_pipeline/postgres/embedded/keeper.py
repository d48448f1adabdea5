"""The parent process of an embedded Postgres, which starts the server and stops it when no process uses it any more.

A user process that is killed cannot stop the server. The keeper therefore watches ``users.lock`` and stops the server
when no process holds the lock. If the keeper dies, the kernel interrupts the server, which then shuts down normally.

The keeper is run by its path and imports little, because each start of a server waits for it. It inherits its
environment, its log and ``server.lock``, and the server inherits them from the keeper.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

_LOOK_EVERY = 0.5
"""Seconds between two checks of ``users.lock``."""
_UNUSED = 4
"""Consecutive checks without a user before the server is stopped; a new user often follows at once."""
_STOPPING = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""The signals that stop the server, and the seconds to wait after each."""
_SET_PARENT_DEATH_SIGNAL = 1


def main(folder: str, startings_end: int, uid: int, gid: int, command: list[str]) -> None:
    """Fork into the background, run the server, and return when the server has ended.

    Args:
        folder: Folder of ``users.lock`` and ``start.lock``.
        startings_end: A pipe that closes when the server has ended; the process that waits for the start reads it.
        uid: User id of the server, -1 for this user.
        gid: Group id of the server.
        command: Command line of the server.
    """
    if os.fork():
        return
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    server = _start(startings_end, uid, gid, command)
    users, starting = (os.open(f"{folder}/{name}", os.O_RDWR) for name in ("users.lock", "start.lock"))
    unused = 0
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        signal.sigtimedwait([signal.SIGCHLD], _LOOK_EVERY)
        unused = unused + 1 if _is_free(users) else 0
        # The lock is not waited for: its holder is about to use the server, or waits for the server to end.
        if unused >= _UNUSED and _lock(starting):
            if _is_free(users):
                _stop(server)
                return
            fcntl.flock(starting, fcntl.LOCK_UN)


def _start(startings_end: int, uid: int, gid: int, command: list[str]) -> int:
    prctl, keeper = ctypes.CDLL(None).prctl, os.getpid()
    if pid := os.fork():
        return pid
    try:
        os.close(startings_end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        # This follows the change of account, which resets the setting.
        prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGINT))
        if os.getppid() == keeper:
            os.execv(command[0], command)  # noqa: S606  # the command is spelled out in this package
    finally:
        os._exit(126)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(descriptor: int) -> bool:
    if not _lock(descriptor):
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _stop(server: int) -> None:
    for number, seconds in _STOPPING:
        os.kill(server, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if os.waitpid(server, os.WNOHANG) != (0, 0):
                return
            signal.sigtimedwait([signal.SIGCHLD], _LOOK_EVERY)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
