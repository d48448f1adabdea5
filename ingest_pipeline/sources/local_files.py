"""A file of a local folder as a document: its ETag, and whether it is still the file that was listed."""

import errno
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from ingest_pipeline.errors import DocumentChangedError
from ingest_pipeline.types import SourceObject

_TICK_NS, _COARSE_NS = 20_000_000, 2_000_000_000
"""Two changes of a file within this time may get equal timestamps: two ticks of the kernel; on FAT, two seconds."""
_NS_OF_COARSE = 10_000_000
"""Timestamps that are whole multiples of this come from a file system with coarse timestamps."""
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Some file systems keep times outside the calendar's range.
_FIRST_SECOND, _LAST_SECOND = datetime.min.replace(tzinfo=UTC).timestamp(), datetime.max.replace(tzinfo=UTC).timestamp()


def regular_file(path: Path) -> os.stat_result | None:
    """The state of a regular file; None if there is none at the path."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    return found if stat.S_ISREG(found.st_mode) else None


def source_object(key: str, found: os.stat_result) -> SourceObject:
    """The document of a file. It has no ETag if its key is not UTF-8."""
    modified = datetime.fromtimestamp(min(max(found.st_mtime, _FIRST_SECOND), _LAST_SECOND - 1), UTC)
    readable = readable_name(key)
    return SourceObject(readable, etag_of(found) if readable == key else "", found.st_size, modified)


def readable_name(name: str) -> str:
    """The name itself, or an escaped form if it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode(errors="backslashreplace")
    return name


def etag_of(found: os.stat_result) -> str:
    """An ETag with the time of change: every edit sets it to the clock, and no program can set it back."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_ctime_ns:x}-{found.st_size:x}"


def wait_for_next_clock_step(found: os.stat_result) -> None:
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


def check_unchanged(descriptor: int, obj: SourceObject) -> os.stat_result:
    """The state of an opened file.

    Raises:
        DocumentChangedError: It is not the file that was listed.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not _is_as_listed(found, obj):
        raise changed(obj.key, "replaced")
    return found


def _is_as_listed(found: os.stat_result, obj: SourceObject) -> bool:
    if found.st_nlink:
        return etag_of(found) == obj.etag
    # The file was replaced by a rename, which changed only its time of change. The opened file is complete, and the
    # next listing finds the new file under the name.
    inode, modified, _, size = obj.etag.split("-")
    return (inode, modified, size) == (f"{found.st_ino:x}", f"{found.st_mtime_ns:x}", f"{found.st_size:x}")


def changed(key: str, how: str) -> DocumentChangedError:
    """The error about a file that was removed, replaced or cut after it was listed."""
    return DocumentChangedError(f"Document {key!r} was {how} after it was listed, and was not published")
