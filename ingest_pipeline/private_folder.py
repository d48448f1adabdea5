"""Folders that other accounts of the machine cannot read, because they contain the text of documents."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents for this account only. Existing folders keep their mode.

    Raises:
        OSError: The folder cannot be created.
    """
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def local_path(location: str) -> Path | None:
    """The local path of a URL or path; None if it is in an object store."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location else Path(location).absolute()


def others_may_read(folder: Path) -> bool:
    """Whether accounts other than the owner and the group can list a folder and reach its files."""
    try:
        reachable = all(above.stat().st_mode & stat.S_IXOTH for above in folder.parents)
        return reachable and folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH) == stat.S_IROTH | stat.S_IXOTH
    except OSError:
        return False
