"""Fingerprints of a text: salted hashes of short parts of it, by which any bytes are searched for the text.

A part is 16 bytes long. Its hash is a polynomial over its bytes modulo 2**64 (Karp and Rabin, 1987) with a factor that
depends on the erasure's salt. The hashes of all parts of a block are computed at once, as arrays. Two different parts
have the same hash by accident once in 2**64. Parts consist of characters that JSON and Markdown leave as they are, and
a text with other letters is also taken in the form in which JSON writes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

PART_BYTES = 16
_MAX_PARTS = 4096
# Parts taken of each chunk, at most, if a document has very many chunks. They are thinned out afterwards.
_MAX_PARTS_OF_TEXT = 8
_LEAST_DIFFERENT_BYTES = 6
_BLOCK_BYTES = 1 << 16
_FILTER_BITS = 16
# Not quotes, backslashes, line ends and what Markdown or HTML escapes. Bytes of letters beyond ASCII are allowed.
_PLAIN = re.compile(rb"[ !#-%'-;=?-Z^_a-z~\x80-\xff]{16,}")
_AS_JSON = re.compile(rb"[ !#-%'-;=?-z~]{16,}")

Hashes = npt.NDArray[np.uint64]


@dataclass(slots=True)
class Fingerprints:
    """Hashes of parts of a text, and which of them were found.

    Args:
        salt: The salt of the erasure.
        hashes: The hashes, shape (n,), ascending and without duplicates.
    """

    salt: bytes
    hashes: Hashes
    shared: set[int] = field(default_factory=set[int])
    """Hashes of parts that other documents have, too."""
    _factor: np.uint64 = field(init=False)
    _filter: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Prepare the search."""
        digest = hashlib.sha256(self.salt + b"factor").digest()
        self._factor = np.uint64(int.from_bytes(digest[:8], "little") | 1)
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._filter[self.hashes >> np.uint64(64 - _FILTER_BITS)] = True

    @classmethod
    def of(cls, salt: bytes, texts: Iterable[str], blobs: Iterable[bytes] = ()) -> Fingerprints:
        """The fingerprints of some texts and of some binary values, such as vectors.

        Args:
            salt: The salt of the erasure.
            texts: The texts.
            blobs: Values whose first 16 bytes are taken, unless they have few different bytes.
        """
        texts = list(texts)
        most = max(_MAX_PARTS_OF_TEXT, _MAX_PARTS // max(1, len(texts)))
        parts = list(dict.fromkeys(part for text in texts for part in _parts(text, most)))
        parts += [blob[:PART_BYTES] for blob in blobs if len(set(blob[:PART_BYTES])) >= _LEAST_DIFFERENT_BYTES]
        step = max(1, -(-len(parts) // _MAX_PARTS))
        empty = cls(salt, np.zeros(0, np.uint64))
        found = [empty._rolling(np.frombuffer(part, np.uint8))[0] for part in parts[::step]]
        return cls(salt, np.unique(np.array(found, np.uint64)))

    @classmethod
    def read(cls, salt: bytes, recorded: bytes) -> Fingerprints:
        """The fingerprints that `recorded` returned."""
        return cls(salt, np.unique(np.frombuffer(recorded, "<u8").astype(np.uint64)))

    def recorded(self) -> bytes:
        """The hashes as the ledger records them."""
        return self.hashes.astype("<u8").tobytes()

    @property
    def distinct(self) -> int:
        """The number of fingerprints that no other document has."""
        return len(self.hashes) - len(self.shared)

    def hits(self, content: bytes | memoryview) -> set[int]:
        """The hashes of parts that occur in some bytes, except those that other documents have."""
        data = np.frombuffer(content, np.uint8)
        found: set[int] = set()
        if not len(self.hashes):
            return found
        for start in range(0, max(len(data) - PART_BYTES + 1, 0), _BLOCK_BYTES):
            rolled = self._rolling(data[start : start + _BLOCK_BYTES + PART_BYTES - 1])
            candidates = rolled[self._filter[rolled >> np.uint64(64 - _FILTER_BITS)]]
            if len(candidates):
                found.update(np.intersect1d(candidates, self.hashes).tolist())
        return found - self.shared

    def _rolling(self, data: npt.NDArray[np.uint8]) -> Hashes:
        """The hash of the part that begins at each byte, shape (n - 15,)."""
        hashes, factor, width = data.astype(np.uint64) + np.uint64(1), self._factor, 1
        with np.errstate(over="ignore"):
            while width < PART_BYTES:
                hashes = hashes[:-width] * factor + hashes[width:]
                factor, width = factor * factor, 2 * width
            return _mixed(hashes)


def _mixed(hashes: Hashes) -> Hashes:
    """Mix the hashes, so that their upper bits depend on all others."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return hashes ^ (hashes >> np.uint64(29))


def _parts(text: str, most: int) -> Iterator[bytes]:
    """At most `most` parts of one text, evenly spread."""
    parts = list(_cut(_PLAIN, text.encode()))
    if not text.isascii():
        parts += _cut(_AS_JSON, json.dumps(text)[1:-1].encode())
    step = max(1, -(-len(parts) // most))
    return iter(parts[::step])


def _cut(plain: re.Pattern[bytes], text: bytes) -> Iterator[bytes]:
    for run in plain.findall(text):
        for start in range(0, len(run) - PART_BYTES + 1, PART_BYTES):
            part = run[start : start + PART_BYTES]
            if len(set(part)) >= _LEAST_DIFFERENT_BYTES:
                yield part
