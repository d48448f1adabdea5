"""Documents in a folder of this machine.

This is own code because the object store library omits names of a local folder that end in ``#`` and
digits, and ends the listing at the first control character or circular link.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ingest_pipeline.errors import (
    ConfigurationError,
    InaccessibleDocumentError,
    SourceMissingError,
    SourceUnavailableError,
)
from ingest_pipeline.sources.filters import pattern_of
from ingest_pipeline.sources.local_files import (
    changed,
    check_unchanged,
    regular_file,
    source_object,
    wait_for_next_clock_step,
)
from ingest_pipeline.sources.local_listing import ExclusionReasonOf, FollowLinks, KeyRange, Links, Listing, OnExcluded
from ingest_pipeline.sources.state_folders import stores_reason
from ingest_pipeline.types import SourceObject

_BLOCK_BYTES = 1 << 20


def include_all(_: str) -> None:
    """Exclude no name."""


def ignore_excluded(_: str, __: str) -> None:
    """Ignore excluded entries."""


class LocalFolder:
    """A folder and all below it.

    Regular files are listed, hidden ones too, in order of their keys' code points. Links are followed, but not back to
    a folder above. Unfinished files, links that lead nowhere, entries that are no files, and folders in which this
    package keeps its state are excluded, with a reason for each.

    Args:
        root: The folder.
        links: Which links are followed.

    Raises:
        SourceMissingError: The folder does not exist.
        ConfigurationError: The path is no folder.
    """

    def __init__(self, root: Path, links: FollowLinks = "inside") -> None:
        self._root = root
        self._links = Links(root, links)
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
            keys = KeyRange(after, f"{folder}/" if folder else "")
            last = after
            for obj in Listing(keys, self._links, exclusion_reason_of, on_excluded).walk(self._root):
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
            is_excluded = self._links.refusal(path, key) or self._is_in_state_folder(key)
            found = None if is_excluded else regular_file(path)
        except ValueError:
            return None
        except OSError as error:
            raise self._unreadable(error, "examined") from error
        return source_object(key, found) if found else None

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
            raise changed(obj.key, "cut")
        return body

    def _open(self, obj: SourceObject) -> int:
        try:
            _check_key(obj.key)
            # A string, because joining paths takes as long as opening the file.
            # Without waiting: the file may have been replaced by a pipe.
            descriptor = os.open(f"{self._root}/{obj.key}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            raise changed(obj.key, "removed") from error
        except OSError as error:
            raise InaccessibleDocumentError(
                obj.key, f"cannot be read: {error.strerror}", "Check the file's permissions."
            ) from error
        # Checked after the file was opened: a link in the path may have been changed since the listing.
        if self._links.refusal_of_opened(obj.key, descriptor):
            os.close(descriptor)
            raise changed(obj.key, "replaced by a link")
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
        wait_for_next_clock_step(check_unchanged(descriptor, obj))
        try:
            # Reads one byte more than remains: this detects a file that grew, and reads any other in one call.
            left = obj.size
            while block := os.read(descriptor, min(_BLOCK_BYTES, left + 1)):
                # Checked before each block is yielded, so that bytes rewritten in place are never mixed in.
                check_unchanged(descriptor, obj)
                yield block
                left -= len(block)
                if left <= 0:
                    break
        except OSError as error:
            raise SourceUnavailableError(f"Document {obj.key!r} cannot be read: {error.strerror}") from error
        check_unchanged(descriptor, obj)

    def _is_in_state_folder(self, key: str) -> bool:
        """Whether a folder above a file is one that a listing does not enter."""
        above = ["", *(key[:end] for end, character in enumerate(key) if character == "/")]
        return any(stores_reason(partial(_exists, f"{self._root}/{folder}")) for folder in above)

    def _path(self, key: str) -> Path:
        _check_key(key)
        return self._root / key


def _exists(folder: str, name: str) -> bool:
    """Whether a folder has an entry; False if that cannot be examined, because then examining the file fails too."""
    return os.path.exists(f"{folder}/{name}")  # noqa: PTH110  a path raises


def _check_key(key: str) -> None:
    """Refuse a key that is not the path of a file below the folder.

    Raises:
        ValueError: It is none.
    """
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(key)
