"""Documents in a folder of this machine.

This is own code because the object store library omits names of a local folder that end in ``#`` and
digits, and ends the listing at the first control character or circular link.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from ingest_pipeline.errors import (
    ConfigurationError,
    DocumentChangedError,
    InaccessibleDocumentError,
    SourceMissingError,
    SourceUnavailableError,
)
from ingest_pipeline.sources.filters import pattern_of
from ingest_pipeline.types import SourceObject

ExclusionReasonOf = Callable[[str], str | None]
"""Returns why a name is excluded, or None if it is included. The name of a folder ends in a slash."""
OnExcluded = Callable[[str, str], None]
"""Called with name and reason of each entry that is not listed."""
FollowLinks = Literal["anywhere", "inside", "never"]
"""Which links of a folder are followed. ``inside``, the default, follows links to targets in the same folder.

With ``anywhere``, anyone who can put a link into the folder can have any file embedded that this process may read.
"""

_BLOCK_BYTES = 1 << 20
_UNFINISHED = re.compile(r"^(\.#|\.~|~\$)|(\.tmp|\.part|\.crdownload|\.swp|.~)$")
"""Temporary names under which editors, browsers and office programs write a file before they rename it."""


_TICK_NS, _COARSE_NS = 20_000_000, 2_000_000_000
"""Two changes of a file within this time may get equal timestamps: two ticks of the kernel; on FAT, two seconds."""
_NS_OF_COARSE = 10_000_000
"""Timestamps that are whole multiples of this come from a file system with coarse timestamps."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Some file systems keep times outside the calendar's range.
_FIRST_SECOND, _LAST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp(), datetime.max.replace(tzinfo=UTC).timestamp()


def include_all(_: str) -> None:
    """Exclude no name."""


def ignore_excluded(_: str, __: str) -> None:
    """Ignore excluded entries."""


class LocalFolder:
    """A folder and all below it.

    Regular files are listed, hidden ones too, in order of their keys' code points. Links are followed, but not back to
    a folder above. Unfinished files, links that lead nowhere, and entries that are no files are excluded, with a
    reason for each.

    Args:
        root: The folder.
        links: Which links are followed.

    Raises:
        SourceMissingError: The folder does not exist.
        ConfigurationError: The path is no folder.
    """

    def __init__(self, root: Path, links: FollowLinks = "inside") -> None:
        self._root = root
        self._links = _Links(root, links)
        if not root.is_dir():
            if root.exists():
                raise ConfigurationError(
                    f"The source {str(root)!r} is not a folder", "Set INGEST_SOURCE to its folder."
                )
            raise SourceMissingError(
                f"The source folder {str(root)!r} does not exist", "Create it, or set INGEST_SOURCE."
            )

    def list(
        self, after: str, folder: str, exclusion_reason_of: ExclusionReasonOf, on_excluded: OnExcluded
    ) -> Iterator[SourceObject]:
        """Every document below the folder. A document whose name is not UTF-8 has no ETag and cannot be read.

        Args:
            after: Only keys after this one.
            folder: Only documents below this folder.
            exclusion_reason_of: Why a name is excluded; None if it is included. An excluded folder is not listed, and
                an excluded entry that cannot be examined raises no error.
            on_excluded: Called with name and reason of each entry that is not listed.

        Raises:
            SourceUnavailableError: A folder cannot be read. If it were skipped, its documents would seem deleted.
        """
        try:
            before = self._root.stat()
            keys = _Range(after, f"{folder}/" if folder else "")
            last = after
            for obj in _Listing(keys, self._links, exclusion_reason_of, on_excluded).walk(self._root):
                # Names that are not UTF-8 may look alike.
                if obj.key > last and keys.contains(obj.key):
                    last = obj.key
                    yield obj
            # If a disk is unmounted meanwhile, one folder after another seems to disappear.
            if not os.path.samestat(before, self._root.stat()):
                raise SourceUnavailableError(f"The folder {str(self._root)!r} was replaced while it was listed")
        except OSError as error:
            raise self._unreadable(error, "listed") from error

    def stat(self, key: str) -> SourceObject | None:
        """The document as it is now; None if it does not exist.

        Raises:
            SourceUnavailableError: The file cannot be examined. If it were treated as missing, it would seem deleted.
        """
        try:
            path = self._path(key)
            found = None if self._links.refusal(path) else _regular(path)
        except ValueError:
            return None
        except OSError as error:
            raise self._unreadable(error, "examined") from error
        return _source_object(key, found) if found else None

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        """The documents among these that exist."""
        return [found for key in keys if (found := self.stat(key)) is not None]

    def read(self, obj: SourceObject) -> Iterator[bytes]:
        """The bytes of the document as it was listed, in blocks of 1 MB.

        Raises:
            DocumentChangedError: The file was replaced, removed or written to since; perhaps after some blocks.
            InaccessibleDocumentError: Reading the file is not permitted.
        """
        descriptor = self._open(obj)
        try:
            yield from self._blocks(descriptor, obj)
        finally:
            os.close(descriptor)

    def read_range(self, obj: SourceObject, start: int, end: int) -> bytes:
        """Some bytes of the document as it was listed.

        Raises:
            DocumentChangedError, DocumentError: See `read`.
        """
        descriptor = self._open(obj)
        try:
            found = os.fstat(descriptor)
            body = os.pread(descriptor, end - start, start) if stat.S_ISREG(found.st_mode) else b""
        except OSError as error:
            raise InaccessibleDocumentError(obj.key, f"cannot be read: {error.strerror}") from error
        finally:
            os.close(descriptor)
        if len(body) < end - start:
            raise _changed(obj.key, "cut")
        return body

    def _open(self, obj: SourceObject) -> int:
        try:
            # Without waiting: the file may have been replaced by a pipe.
            descriptor = os.open(self._path(obj.key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise _changed(obj.key, "removed") from error
        except OSError as error:
            raise InaccessibleDocumentError(
                obj.key, f"cannot be read: {error.strerror}", "Check the file's permissions."
            ) from error
        # Checked after the file was opened: a link in the path may have been changed since the listing.
        if self._links.refusal(self._path(obj.key), descriptor):
            os.close(descriptor)
            raise _changed(obj.key, "replaced by a link")
        return descriptor

    def _unreadable(self, error: OSError, wanted: str) -> SourceUnavailableError:
        message = f"{error.filename!r} cannot be {wanted}: {error.strerror}. Deleted documents cannot be determined"
        relative = os.path.relpath(os.fsdecode(error.filename or self._root), self._root)
        if error.errno not in {errno.EACCES, errno.EPERM} or relative == "." or relative.startswith("../"):
            return SourceUnavailableError(message)
        pattern = pattern_of(relative)
        return SourceUnavailableError(
            message,
            f"Give this user permission to read the path, or exclude it with INGEST_EXCLUDE={pattern!r}, or `exclude`.",
        )

    def _blocks(self, descriptor: int, obj: SourceObject) -> Iterator[bytes]:
        _wait_for_next_clock_step(_check_unchanged(descriptor, obj))
        try:
            # Reads one byte more than remains: this detects a file that grew, and reads any other in one call.
            left = obj.size
            while block := os.read(descriptor, min(_BLOCK_BYTES, left + 1)):
                # Checked before each block is yielded, so that bytes rewritten in place are never mixed in.
                _check_unchanged(descriptor, obj)
                yield block
                left -= len(block)
                if left <= 0:
                    break
        except OSError as error:
            raise SourceUnavailableError(f"Document {obj.key!r} cannot be read: {error.strerror}") from error
        _check_unchanged(descriptor, obj)

    def _path(self, key: str) -> Path:
        if any(part in {"", ".", ".."} for part in key.split("/")):
            raise ValueError(key)
        return self._root / key


class _Listing:
    """One walk through a folder and all below it."""

    def __init__(
        self, keys: "_Range", links: "_Links", exclusion_reason_of: ExclusionReasonOf, on_excluded: OnExcluded
    ) -> None:
        self._keys = keys
        self._links = links
        self._exclusion_reason_of = exclusion_reason_of
        self._on_excluded = on_excluded

    def walk(self, folder: Path, prefix: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[SourceObject]:
        own = folder.stat()
        identity = (own.st_dev, own.st_ino)
        if identity in above:
            self._note(prefix, "link back to a folder above")
            return
        for name, entry in self._sorted_entries(folder, prefix):
            shown = _readable(prefix + name)
            if not name.endswith("/"):
                yield from self._file(prefix + name, entry)
            elif not self._keys.excludes(shown) and not self._is_excluded(shown):
                try:
                    yield from self.walk(entry, prefix + name, (*above, identity))
                except FileNotFoundError:  # removed while listing
                    continue

    def _sorted_entries(self, folder: Path, prefix: str) -> list[tuple[str, Path]]:
        """Entries sorted by name, with a slash after the names of folders: the order in which object stores list."""
        found: list[tuple[str, Path]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and (refusal := self._links.refusal(Path(entry.path))):
                    self._note(_readable(prefix + entry.name), refusal)
                    continue
                try:
                    slash = "/" if entry.is_dir() else ""
                except OSError as error:
                    if error.errno not in _NOT_THERE:
                        if self._is_excluded(_readable(prefix + entry.name)):
                            continue
                        raise
                    slash = ""
                found.append((entry.name + slash, Path(entry.path)))
        return sorted(found, key=lambda entry: (readable := _readable(entry[0]), readable != entry[0]))

    def _file(self, key: str, entry: Path) -> Iterator[SourceObject]:
        shown = _readable(key)
        try:
            found = _regular(entry)
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
            yield _source_object(key, found)

    def _is_excluded(self, shown: str) -> bool:
        reason = self._exclusion_reason_of(shown)
        if reason is not None:
            self._note(shown, reason)
        return reason is not None

    def _note(self, shown: str, reason: str) -> None:
        if self._keys.contains(shown):
            self._on_excluded(shown, reason)


@dataclass(frozen=True, slots=True)
class _Links:
    """Which links below a folder are followed."""

    root: Path
    follow: FollowLinks

    def refusal(self, path: Path, descriptor: int | None = None) -> str | None:
        """Why the file at a path is excluded because of a link; None if it is not.

        Args:
            path: A path below the folder.
            descriptor: An opened file, whose real path is examined instead.
        """
        if self.follow == "anywhere":
            return None
        root = os.path.realpath(self.root)
        real = os.path.realpath(path) if descriptor is None else str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if not real.startswith(os.path.join(root, "")):  # noqa: PTH118  the file system's root ends in a slash already
            return "link out of the source"
        # The kernel appends a remark to the name of a file that was replaced since it was opened.
        wanted = os.path.join(root, path.relative_to(self.root))  # noqa: PTH118
        if self.follow == "never" and real.removesuffix(" (deleted)") != wanted.removesuffix(" (deleted)"):
            return "link"
        return None


@dataclass(frozen=True, slots=True)
class _Range:
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


def _regular(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    return found if stat.S_ISREG(found.st_mode) else None


def _source_object(key: str, found: os.stat_result) -> SourceObject:
    modified = datetime.fromtimestamp(min(max(found.st_mtime, _FIRST_SECOND), _LAST_SECOND - 1), UTC)
    readable = _readable(key)
    return SourceObject(readable, _etag(found) if readable == key else "", found.st_size, modified)


def _readable(name: str) -> str:
    """The name itself, or an escaped form if it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode(errors="backslashreplace")
    return name


def _etag(found: os.stat_result) -> str:
    """An ETag with the time of change: every edit sets it to the clock, and no program can set it back."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}-{found.st_size:x}"


def _wait_for_next_clock_step(found: os.stat_result) -> None:
    """Wait until the file's time of change has passed, so that any edit from now on gets another one.

    A file that is changed in the same step of the clock in which it is read would keep its ETag. Git calls such a file
    "racily clean". Here a file is read only after that step, so every recorded ETag is reliable. The wait is 20 ms
    at most, 2 s on file systems with timestamps in whole seconds. Reads of several such files wait concurrently.
    """
    changed = found.st_ctime_ns
    granule = _TICK_NS if changed % _NS_OF_COARSE else _COARSE_NS
    # A file server's clock may be ahead, but the change was before this moment.
    left = min(granule, changed + granule - time.time_ns())
    if left > 0:
        time.sleep(left / 1e9)


def _check_unchanged(descriptor: int, obj: SourceObject) -> os.stat_result:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not _is_as_listed(found, obj):
        raise _changed(obj.key, "replaced")
    return found


def _is_as_listed(found: os.stat_result, obj: SourceObject) -> bool:
    if found.st_nlink:
        return _etag(found) == obj.etag
    # The file was replaced by a rename, which changed only its time of change. The opened file is complete, and the
    # next listing finds the new file under the name.
    inode, modified, _, size = obj.etag.split("-")
    return (inode, modified, size) == (f"{found.st_ino:x}", f"{found.st_mtime_ns:x}", f"{found.st_size:x}")


def _changed(key: str, how: str) -> DocumentChangedError:
    return DocumentChangedError(f"Document {key!r} was {how} after it was listed, and was not published")
