"""Lists a local folder and all below it: which entries are documents, and which links are followed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ingest_pipeline.sources.local_files import NOT_THERE, readable_name, regular_file, source_object
from ingest_pipeline.sources.state_folders import state_folder_reason
from ingest_pipeline.types import SourceObject

ExclusionReasonOf = Callable[[str], str | None]
"""Returns why a name is excluded, or None if it is included. The name of a folder ends in a slash."""
OnExcluded = Callable[[str, str], None]
"""Called with name and reason of each entry that is not listed."""
FollowLinks = Literal["anywhere", "inside", "never"]
"""Which links of a folder are followed. ``inside``, the default, follows links to targets in the same folder.

With ``anywhere``, anyone who can put a link into the folder can have any file embedded that this process may read.
"""
_UNFINISHED = re.compile(r"^(\.#|\.~|~\$)|(\.tmp|\.part|\.crdownload|\.swp|.~)$")
"""Temporary names under which editors, browsers and office programs write a file before they rename it."""


class Listing:
    """One walk through a folder and all below it."""

    def __init__(
        self, keys: KeyRange, links: Links, exclusion_reason_of: ExclusionReasonOf, on_excluded: OnExcluded
    ) -> None:
        self._keys = keys
        self._links = links
        self._exclusion_reason_of = exclusion_reason_of
        self._on_excluded = on_excluded

    def walk(self, folder: Path, prefix: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[SourceObject]:
        """The documents below a folder, in order of their keys.

        Args:
            folder: The folder.
            prefix: What precedes the names of its entries in their keys.
            above: Device and inode of the folders above it.
        """
        own = folder.stat()
        identity = (own.st_dev, own.st_ino)
        if identity in above:
            self._note(prefix, "link back to a folder above")
            return
        names = self._sorted_names(folder, prefix)
        if reason := state_folder_reason(names):
            self._note(readable_name(prefix), reason)
            return
        for name in names:
            shown = readable_name(prefix + name)
            if not name.endswith("/"):
                # Not before this one: examining a file costs as much as the rest of the comparison.
                if self._keys.contains(shown):
                    yield from self._file(prefix + name, folder / name)
            elif not self._keys.excludes(shown) and not self._is_excluded(shown):
                try:
                    yield from self.walk(folder / name, prefix + name, (*above, identity))
                except FileNotFoundError:  # removed while listing
                    continue

    def _sorted_names(self, folder: Path, prefix: str) -> list[str]:
        """Names of the entries, with a slash after those of folders, in the order in which object stores list.

        Nothing but the names, since a folder may have millions of files.
        """
        found: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and (refusal := self._links.refusal(entry.path, prefix + entry.name)):
                    self._note(readable_name(prefix + entry.name), refusal)
                    continue
                try:
                    slash = "/" if entry.is_dir() else ""
                except OSError as error:
                    if error.errno not in NOT_THERE:
                        if self._is_excluded(readable_name(prefix + entry.name)):
                            continue
                        raise
                    slash = ""
                found.append(entry.name + slash)
        if all(map(_is_readable, found)):
            found.sort()
        else:
            found.sort(key=lambda name: (readable := readable_name(name), readable != name))
        return found

    def _file(self, key: str, entry: Path) -> Iterator[SourceObject]:
        shown = readable_name(key)
        try:
            found = regular_file(entry)
        except OSError:
            if not self._is_excluded(shown):
                raise
            return
        if found is None:
            if entry.is_symlink():
                self._note(shown, "link that leads nowhere")
            elif os.path.lexists(entry):
                self._note(shown, "neither a file nor a folder")
        elif _UNFINISHED.search(entry.name):
            self._note(shown, "name of a file that is still being written")
        elif shown != key and os.path.lexists(entry.with_name(shown.rpartition("/")[2])):
            self._note(shown, "name that is not UTF-8 and looks like another one")
        else:
            yield source_object(key, found)

    def _is_excluded(self, shown: str) -> bool:
        reason = self._exclusion_reason_of(shown)
        if reason is not None:
            self._note(shown, reason)
        return reason is not None

    def _note(self, shown: str, reason: str) -> None:
        if self._keys.contains(shown):
            self._on_excluded(shown, reason)


def _is_readable(name: str) -> bool:
    return name.isascii() or readable_name(name) == name


@dataclass(slots=True)
class Links:
    """Which links below a folder are followed."""

    root: Path
    follow: FollowLinks
    _resolved: tuple[tuple[int, int] | None, str] = field(default=(None, ""), init=False)
    """The folder's device and inode, and its real path with a slash at the end, when it was last resolved."""

    def refusal(self, path: Path | str, key: str) -> str | None:
        """Why the file of a key, at a path below the folder, is excluded because of a link; None if it is not."""
        if self.follow == "anywhere":
            return None
        # Strings, because this runs for every document, and pathlib would take longer than reading a small one.
        return self._refusal(os.path.realpath(path), key)

    def refusal_of_opened(self, key: str, descriptor: int) -> str | None:
        """Why a file that was opened at the path of a key is excluded because of a link; None if it is not."""
        if self.follow == "anywhere":
            return None
        return self._refusal(os.readlink(f"/proc/self/fd/{descriptor}"), key)  # noqa: PTH115

    def _refusal(self, real: str, key: str) -> str | None:
        """Why the file with a real path is excluded.

        Args:
            real: Where the file is.
            key: Its path below the folder, by which it was found.
        """
        root = self._real_root()
        if not real.startswith(root) and not real.startswith(root := self._real_root(again=True)):
            return "link out of the source"
        if self.follow == "never":
            # The kernel appends a remark to the name of a file that was replaced since it was opened.
            wanted = os.path.join(root, key)  # noqa: PTH118
            return "link" if real.removesuffix(" (deleted)") != wanted.removesuffix(" (deleted)") else None
        return None

    def _real_root(self, *, again: bool = False) -> str:
        """The real path of the folder, resolved again if the folder is a link and leads elsewhere now.

        Args:
            again: Resolve it in any case: a folder above it may have another name now.
        """
        try:
            found = os.stat(self.root)  # noqa: PTH116
            identity = found.st_dev, found.st_ino
        except OSError:
            identity = None
        before, root = self._resolved
        if again or identity is None or identity != before:
            root = os.path.join(os.path.realpath(self.root), "")  # noqa: PTH118  the root of all has its slash
            self._resolved = identity, root
        return root


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys after one key and below one folder; both may be empty."""

    after: str
    below: str

    def contains(self, key: str) -> bool:
        """Whether a key is in the range."""
        return key > self.after and key.startswith(self.below)

    def excludes(self, folder: str) -> bool:
        """Whether nothing below a folder is in the range. The folder's name ends in a slash."""
        is_before = folder < self.after and not self.after.startswith(folder)
        return is_before or not (folder.startswith(self.below) or self.below.startswith(folder))
