"""Files of an embedded server: private to this account, locked, flushed and removed."""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

_REMOVED_WITHIN = 10.0
"""Seconds to wait for a killed starter whose initdb still writes."""


def private_file(path: Path) -> IO[bytes]:
    """Open a file for appending, and create it with access for this account only."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def flush_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut, unless this user cannot have changed them."""
    with contextlib.suppress(PermissionError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def try_lock(file: IO[bytes]) -> bool:
    """Lock a file until this process and all children that inherit it close it; False if the lock is taken."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_partial(folder: Path) -> None:
    """Remove a partial database. The initdb of a killed process may still write to it for a moment."""
    deadline = time.monotonic() + _REMOVED_WITHIN
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            time.sleep(0.1)
