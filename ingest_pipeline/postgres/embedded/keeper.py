"""The process above an embedded Postgres: it starts the server and ends it when no process uses it any more.

A user that is killed cannot stop the server, so somebody must live who sees that nobody holds ``users.lock``. If this
process dies itself, the kernel interrupts the server, which then ends as if it had been stopped.

It is run by its path and imports little, since each start of a server waits for it. Its environment, its log and the
lock that says that a server runs are inherited, and pass on to the server.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

_LOOK_EVERY = 0.5
"""Seconds between two looks at the users."""
_UNUSED = 4
"""Looks in a row that see no user before the server is ended; a user that dies is often replaced at once."""
_STOPPING = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""What the server is told, and how many seconds it then has."""
_SET_PARENT_DEATH_SIGNAL = 1


def main(folder: str, startings_end: int, uid: int, gid: int, command: list[str]) -> None:
    """Leave the process that called, run the server, and return when it has ended.

    Args:
        folder: Where ``users.lock`` and ``start.lock`` lie.
        startings_end: A pipe that closes when the server has ended; whoever waits for the start reads it.
        uid: Account of the server, -1 for this one.
        gid: Its group.
        command: The server.
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
        # Without a pause for the lock: whoever has it is about to use the server, or waits for it to end.
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
        # After the change of account, which would forget it.
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
