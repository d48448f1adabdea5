"""Keeps the bytes of objects in memory from their first read to the next, so that they are fetched once."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from threading import Lock

from ingest_pipeline.types import SourceObject

_MAX_BYTES = 64 << 20


class KeptObjects:
    """The bytes of some objects, 64 MB in total at most. An object that does not fit is not kept."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._free = max_bytes
        self._kept: dict[tuple[str, str], tuple[int, list[bytes]]] = {}
        self._lock = Lock()

    def keep(self, obj: SourceObject, blocks: Iterable[bytes]) -> Generator[bytes]:
        """Pass the blocks of an object on, and keep them once all were read."""
        if not self._reserve(obj.size):
            yield from blocks
            return
        kept: list[bytes] = []
        complete = False
        try:
            for block in blocks:
                kept.append(block)
                yield block
            complete = True
        finally:
            with self._lock:
                if complete and (obj.key, obj.etag) not in self._kept:
                    self._kept[obj.key, obj.etag] = (obj.size, kept)
                else:
                    self._free += obj.size

    def take(self, obj: SourceObject) -> list[bytes] | None:
        """Remove the blocks of an object from memory and return them. None: the object is not kept."""
        with self._lock:
            size, blocks = self._kept.pop((obj.key, obj.etag), (0, None))
            self._free += size
        return blocks

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True
