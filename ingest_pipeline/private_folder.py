"""Folders that no other account of the machine may look into: they hold the text of documents that may be private."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this account alone; what exists keeps its mode.

    Raises:
        OSError: It cannot be made.
    """
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def local_path(place: str) -> Path | None:
    """The path that a url or path names on this machine, or None if it names an object store."""
    if place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return None if "://" in place else Path(place).absolute()


def others_may_read(folder: Path) -> bool:
    """Whether accounts beside the owner's and the group's may list a folder and reach what lies in it."""
    try:
        reachable = all(above.stat().st_mode & stat.S_IXOTH for above in folder.parents)
        return reachable and folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) == stat.S_IROTH | stat.S_IXOTH
    except OSError:
        return False
