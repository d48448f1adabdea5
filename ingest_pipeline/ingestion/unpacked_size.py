"""An upper bound for the text of an Office or EPUB file: the unpacked sizes in the directory of its ZIP archive.

Only the directory is read, with one or two requests at the end of the file. The sizes are an upper bound, because the
members are XML or HTML and contain markup besides the text.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from ingest_pipeline.errors import DocumentError, StaleError
from ingest_pipeline.sources.object_store import ObjectSource
from ingest_pipeline.types import SourceObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 64 << 10
_TEXT = (".xml", ".xhtml", ".html", ".htm", ".txt", ".ncx")
# An estimate does not read a directory that is larger than this.
_MOST_BYTES = 4 << 20


def unpacked_size(source: ObjectSource, document: SourceObject) -> int | None:
    """The unpacked bytes of the members that may have text. None if the file is no ZIP archive or cannot be read.

    Raises:
        SourceUnavailableError: The source does not answer.
    """
    reader = _Reader(source, document)
    try:
        with zipfile.ZipFile(io.BufferedReader(reader, _BLOCK)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, DocumentError, StaleError, NotImplementedError, OSError, ValueError):
        return None
    return sum(member.file_size for member in members if member.filename.lower().endswith(_TEXT))


class _Reader(io.RawIOBase):
    """A read-only file over an object of the source, which requests ranges of bytes."""

    def __init__(self, source: ObjectSource, document: SourceObject) -> None:
        self._source = source
        self._document = document
        self._position = 0
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._document.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._document.size)
        if end <= self._position:
            return 0
        self._read_bytes += end - self._position
        if self._read_bytes > _MOST_BYTES:
            raise ValueError("the directory is too large")
        found = self._source.read_range(self._document, self._position, end)
        view[: len(found)] = found
        self._position += len(found)
        return len(found)
