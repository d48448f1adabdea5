"""The registration of a process as a user of an embedded server."""

import fcntl
import os
from pathlib import Path
from typing import ClassVar


class Share:
    """The registration of a user: a shared lock that the kernel releases when the process ends, however it ends."""

    taken_here: ClassVar["set[Share]"] = set()
    """The shares of this process. The class refers to them, because a caller may keep the url without the object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @property
    def taken(self) -> bool:
        """Whether this process is registered."""
        return self in self.taken_here

    def take(self) -> None:
        """Register this process."""
        if not self.taken:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.taken_here.add(self)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Whether no other process is registered. If so, none can register until `drop`."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def drop(self) -> None:
        """End the registration."""
        if self.taken:
            self.taken_here.remove(self)
            os.close(self._descriptor)

    @classmethod
    def drop_all(cls) -> None:
        """End all registrations of this process."""
        for share in list(cls.taken_here):
            share.drop()


# A forked child inherits its parent's lock. It would count as a user, and could stop its parent's server.
os.register_at_fork(after_in_child=Share.drop_all)
