"""The blocks of a document: runs of windows that are recorded, so that an edited text is cut only where it changed.

A block is found again by the characters before it and by a hash of its text. If all that its cuts depend on is the
same too, so are its chunks, but for their offsets and numbers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from ingest_pipeline.chunking.headings import HeadingState

LEAST_BLOCK: Final = 32 * 1024
"""Characters of a block, at least. Smaller ones make edits cheaper, and their records longer."""
LEAST_COUNT: Final = 3
"""Blocks of a document, at least, that are worth a record."""
_DIGEST, _CONTEXT = 16, 8
_RECORD = np.dtype([("length", "<u4"), ("chunks", "<u4"), ("state", "<u4"), ("digest", "V16"), ("context", "V8")])
_HEAD_BYTES = 4


@dataclass(frozen=True, slots=True)
class CutState:
    """What the chunker knows where a window begins, relative to that place."""

    repeated: int = 0
    """Characters before the window that it sees again."""
    end: int = 0
    """Where the last chunk ends."""
    last_begin: int = -1
    """Where the last chunk begins, if it begins among the characters that are seen again."""
    headings: HeadingState = HeadingState()  # noqa: RUF009  immutable


@dataclass(frozen=True, slots=True)
class Place:
    """Where a window begins, and all that its cuts depend on besides its text."""

    start: int
    chunk_count: int
    """Number of chunks before it."""
    context: str
    """The characters before it that decide about headings."""
    lead: str
    """The end of the window before, which it sees again."""
    state: CutState

    @property
    def digest(self) -> bytes:
        """A hash of the characters before it."""
        return blake2b(f"{self.context}\0{self.lead}".encode(), digest_size=_CONTEXT).digest()


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive windows of a document."""

    length: int
    """Characters."""
    chunks: int
    digest: bytes
    """Hash of the text."""
    context: bytes
    """Hash of the characters before it."""
    state: CutState
    """What the chunker knew where the block begins."""


def text_digest(*texts: str) -> bytes:
    """The hash of a block's text, which may be given in parts."""
    hashed = blake2b(digest_size=_DIGEST)
    for text in texts:
        hashed.update(text.encode())
    return hashed.digest()


class BlockRecorder:
    """Records the blocks of a text that is cut from its beginning.

    Args:
        least: Characters of a block, at least. None: `LEAST_BLOCK`.
    """

    def __init__(self, least: int | None = None) -> None:
        self._least = LEAST_BLOCK if least is None else least
        self._blocks: list[Block] = []
        self._first: Place | None = None
        self._hashed = blake2b(digest_size=_DIGEST)
        self._length = 0

    @property
    def begins(self) -> bool:
        """Whether the next window begins a block if no chunk continues into it."""
        return self._first is None or self._length >= self._least

    def begin(self, place: Place) -> None:
        """Begin a block where the next window begins. The block before it ends there."""
        self.end(place.chunk_count)
        self._first = place

    def add(self, window: str) -> None:
        """Record the text of a window."""
        self._hashed.update(window.encode())
        self._length += len(window)

    def end(self, chunk_count: int) -> None:
        """End the last block.

        Args:
            chunk_count: Number of the document's chunks up to its end.
        """
        if (first := self._first) is not None:
            chunks, digest = chunk_count - first.chunk_count, self._hashed.digest()
            self._blocks.append(Block(self._length, chunks, digest, first.digest, first.state))
        self._first, self._hashed, self._length = None, blake2b(digest_size=_DIGEST), 0

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the text, after `end`."""
        return self._blocks


def may_have_blocks(chunks: int, characters: int) -> bool:
    """Whether a document can be large enough for a record.

    Args:
        chunks: Number of its chunks.
        characters: Characters of a full chunk, about.
    """
    return 2 * chunks * characters >= LEAST_COUNT * LEAST_BLOCK


def is_large_enough(size: int) -> bool:
    """Whether a text of so many bytes can have enough characters for a record, whatever its encoding."""
    return size >= LEAST_COUNT * LEAST_BLOCK


def encoded(blocks: Sequence[Block]) -> bytes | None:
    """The blocks as the catalog records them. None: the document is too small to need them."""
    if len(blocks) < LEAST_COUNT:
        return None
    numbers = {state: number for number, state in enumerate(dict.fromkeys(block.state for block in blocks))}
    records = np.array(
        [(block.length, block.chunks, numbers[block.state], block.digest, block.context) for block in blocks], _RECORD
    ).tobytes()
    states = zlib.compress(json.dumps([_plain(state) for state in numbers]).encode(), 1)
    return len(states).to_bytes(_HEAD_BYTES, "little") + states + records


def decoded(record: bytes) -> list[Block]:
    """The blocks that `encoded` gave this form."""
    size = _HEAD_BYTES + int.from_bytes(record[:_HEAD_BYTES], "little")
    states = [_state(plain) for plain in json.loads(zlib.decompress(record[_HEAD_BYTES:size]))]
    return [
        Block(int(row["length"]), int(row["chunks"]), bytes(row["digest"]), bytes(row["context"]), states[row["state"]])
        for row in np.frombuffer(record[size:], _RECORD)
    ]


def _plain(state: CutState) -> list[object]:
    headings = state.headings
    return [state.repeated, state.end, state.last_begin, headings.fence, headings.styles, headings.path]


def _state(plain: Sequence[Any]) -> CutState:
    repeated, end, last_begin, fence, styles, path = plain
    headings = HeadingState(fence, tuple((sign, over) for sign, over in styles), tuple((n, name) for n, name in path))
    return CutState(repeated, end, last_begin, headings)
