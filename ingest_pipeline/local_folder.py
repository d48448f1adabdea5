"""Documents in a folder of this machine.

Written by hand because the object store library, asked for a local folder, leaves out names that end in ``#`` and
digits, and ends the listing at the first control character or link that leads in a circle.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingest_pipeline.errors import ConfigurationError, DocumentChangedError, DocumentError, SourceUnavailableError
from ingest_pipeline.model import SourceObject

_BLOCK = 1 << 20
_UNFINISHED = re.compile(r"^(\.#|\.~|~\$)|(\.tmp|\.part|\.crdownload|\.swp|~)$")
"""Names under which editors, browsers and office programs write a file before it has its own."""


_TICK_NS, _COARSE_NS = 20_000_000, 2_000_000_000
"""Within so much time two changes of a file may bear one time: two ticks of the kernel; on FAT, two seconds."""
_NS_OF_COARSE = 10_000_000
"""Times that are whole multiples of this come from a file system that keeps no finer ones."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Some file systems keep times that no calendar has.
_FIRST_SECOND, _LAST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp(), datetime.max.replace(tzinfo=UTC).timestamp()


class LocalFolder:
    """A folder and all below it.

    Listed are regular files, hidden ones too, in order of their keys' code points; links are followed, but not back to
    a folder above. Left out are names of unfinished files, links that lead nowhere, and what is no file.

    Args:
        root: The folder.

    Raises:
        ConfigurationError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise ConfigurationError(
                f"The source folder {str(root)!r} does not exist", "Create it, or set INGEST_SOURCE."
            )

    def list(self, after: str, folder: str) -> Iterator[SourceObject]:
        """Every document below the folder; one whose name is not UTF-8 has no ETag and cannot be read.

        Args:
            after: Only keys behind this one.
            folder: Only what lies below this folder.

        Raises:
            SourceUnavailableError: A folder cannot be read. Leaving it out would look like a deletion.
        """
        try:
            before = self._root.stat()
            below = f"{folder}/" if folder else ""
            found = self._walk(self._root, "", _Range(after, below), ())
            last = after
            for obj in found:
                # A name that is not UTF-8 may look like one that is; the latter comes first.
                if obj.key > last and obj.key.startswith(below):
                    last = obj.key
                    yield obj
            # A disk that was taken away meanwhile shows as one folder after another that is gone.
            if not os.path.samestat(before, self._root.stat()):
                raise SourceUnavailableError(f"The folder {str(self._root)!r} was replaced while it was listed")
        except OSError as error:
            raise SourceUnavailableError(f"{error.filename!r} cannot be listed: {error.strerror}") from error

    def stat(self, key: str) -> SourceObject | None:
        """The document as it is now, None if there is none.

        Raises:
            SourceUnavailableError: It cannot be told. Taking it for none would look like a deletion.
        """
        try:
            found = _regular(self._path(key))
        except ValueError:
            return None
        except OSError as error:
            raise SourceUnavailableError(f"{error.filename!r} cannot be looked at: {error.strerror}") from error
        return _source_object(key, found) if found else None

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        """Those of the documents that are there."""
        return [found for key in keys if (found := self.stat(key)) is not None]

    def read(self, obj: SourceObject) -> Iterator[bytes]:
        """The bytes of the document as it was listed, in blocks of 1 MB.

        Raises:
            DocumentChangedError: It was replaced, removed or written to since; perhaps after some blocks.
            DocumentError: It may not be read.
        """
        try:
            # Without waiting: somebody may have put a pipe in the file's place.
            descriptor = os.open(self._path(obj.key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise _changed(obj.key, "removed") from error
        except OSError as error:
            raise DocumentError(
                obj.key, f"cannot be read: {error.strerror}", "Check the file's permissions."
            ) from error
        try:
            yield from self._blocks(descriptor, obj)
        finally:
            os.close(descriptor)

    def _blocks(self, descriptor: int, obj: SourceObject) -> Iterator[bytes]:
        _let_its_time_pass(_check_unchanged(descriptor, obj))
        try:
            # One byte more than is left: a file that grew is seen to, and one that did not is read in one call.
            left = obj.size
            while block := os.read(descriptor, min(_BLOCK, left + 1)):
                # Before each block is handed on, so that what was rewritten in place is never mixed in.
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

    def _walk(
        self, folder: Path, prefix: str, keys: "_Range", above: tuple[tuple[int, int], ...]
    ) -> Iterator[SourceObject]:
        own = folder.stat()
        identity = (own.st_dev, own.st_ino)
        if identity in above:
            return
        for name, entry in _sorted_entries(folder):
            if name.endswith("/"):
                if keys.misses(_readable(prefix + name)):
                    continue
                try:
                    yield from self._walk(entry, prefix + name, keys, (*above, identity))
                except FileNotFoundError:  # removed while listing
                    continue
            elif not _UNFINISHED.search(name) and (found := _regular(entry)):
                yield _source_object(prefix + name, found)


@dataclass(frozen=True, slots=True)
class _Range:
    """Keys behind one, below a folder; both may be empty."""

    after: str
    below: str

    def misses(self, folder: str) -> bool:
        """Whether nothing in a folder, given with the slash at its end, is in the range."""
        is_before = folder < self.after and not self.after.startswith(folder)
        return is_before or not (folder.startswith(self.below) or self.below.startswith(folder))


def _sorted_entries(folder: Path) -> list[tuple[str, Path]]:
    """Names with a slash behind those of folders, which gives the order that object stores list in."""
    with os.scandir(folder) as entries:
        found = [(entry.name + "/" * Path(entry.path).is_dir(), Path(entry.path)) for entry in entries]
    return sorted(found, key=lambda entry: (readable := _readable(entry[0]), readable != entry[0]))


def _regular(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE or path.is_symlink():
            return None
        raise error from None
    return found if stat.S_ISREG(found.st_mode) else None


def _source_object(key: str, found: os.stat_result) -> SourceObject:
    modified = datetime.fromtimestamp(min(max(found.st_mtime, _FIRST_SECOND), _LAST_SECOND - 1), UTC)
    readable = _readable(key)
    return SourceObject(readable, _etag(found) if readable == key else "", found.st_size, modified)


def _readable(name: str) -> str:
    """The name itself, or what can be shown of one that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode(errors="backslashreplace")
    return name


def _etag(found: os.stat_result) -> str:
    """The time of change is in it: every edit sets it to the clock, and no program can set it back."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}-{found.st_size:x}"


def _let_its_time_pass(found: os.stat_result) -> None:
    """Wait until the file's time of change has passed, so that any edit from now on gets another one.

    Git calls a file "racily clean" that was changed within the same step of the clock in which it was read, and reads
    it again at every look. A file is read here only after that step, so no recorded ETag is in doubt. The wait is 20 ms
    at most, on file systems of whole seconds 2 s, and those who read other files of the same moment wait along with it.
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
    # Replaced by a rename, which changed nothing but the time of change. The file is whole, and the next look finds
    # another one under its name.
    inode, modified, _, size = obj.etag.split("-")
    return (inode, modified, size) == (f"{found.st_ino:x}", f"{found.st_mtime_ns:x}", f"{found.st_size:x}")


def _changed(key: str, how: str) -> DocumentChangedError:
    return DocumentChangedError(f"Document {key!r} was {how} after it was listed; nothing of it was published")
