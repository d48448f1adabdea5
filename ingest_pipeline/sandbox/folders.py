"""The folders of child processes, which go when their process goes, even if it is killed.

All child processes of a process have their folders in one folder, which the process locks as long as it lives. A
killed process removes nothing, but the kernel releases its lock. So the next process that starts a child removes every
folder whose lock is free.
"""

import atexit
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Final

_PREFIX: Final = "ingest-pipeline-children-"


class ChildFolders:
    """Makes folders for the child processes of this process."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._own: Path | None = None
        self._locked: int | None = None
        # A forked process makes a folder of its own. The lock stays with the process that made the first one.
        os.register_at_fork(after_in_child=self._forget)

    def make(self) -> str:
        """Make the folder of a child process. The caller removes it when the child has ended.

        Raises:
            OSError: The temporary folder cannot be written.
        """
        with self._making:
            if self._own is None:
                _remove_abandoned(Path(tempfile.gettempdir()))
                self._own, self._locked = _make_locked()
                atexit.register(self._remove)
            return tempfile.mkdtemp(dir=self._own)

    def _remove(self) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    def _forget(self) -> None:
        self._making = threading.Lock()
        if self._locked is not None:
            os.close(self._locked)
        self._own = self._locked = None


def _make_locked() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flock(opened, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            os.close(opened)  # another process takes the new folder for an abandoned one, and removes it
            continue
        except OSError:
            return path, opened  # this file system has no locks, so no process removes the folder of another
        if path.exists():
            return path, opened
        os.close(opened)


def _remove_abandoned(folder: Path) -> None:
    """Remove the folders of processes that are gone, if they belong to this account."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(opened).st_uid == os.geteuid():
                    flock(opened, LOCK_EX | LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(opened)
