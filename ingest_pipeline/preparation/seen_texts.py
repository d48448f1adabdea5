"""Which texts came before, in eight bytes each: of a large document there are millions, and a set would hold 200.

A text is known by the first 64 bits of its hash. Should two texts ever share them, the second is taken for a repetition
of the first: its vector is looked up in vain, or its chunk gets the id of a second occurrence, which is as good.
"""

from __future__ import annotations

from array import array
from collections import Counter
from uuid import UUID

# So many that one holds about a hundred of a million texts, and finding one among them takes a microsecond.
_BUCKETS = 1 << 14


class CompactHashSet:
    """Texts, by their hashes."""

    def __init__(self) -> None:
        self.buckets: dict[int, array[int]] = {}

    def add(self, text_hash: UUID) -> bool:
        """Put a text in; True if it was there."""
        key = text_hash.int >> 64
        bucket = self.buckets.get(key % _BUCKETS)
        if bucket is None:
            self.buckets[key % _BUCKETS] = array("Q", (key,))
            return False
        if key in bucket:
            return True
        bucket.append(key)
        return False

    def __contains__(self, text_hash: UUID) -> bool:
        key = text_hash.int >> 64
        return key in self.buckets.get(key % _BUCKETS, ())


class OccurrenceCounter:
    """How often each text came."""

    def __init__(self) -> None:
        self._texts = CompactHashSet()
        self._again: Counter[UUID] = Counter()

    def count(self, text_hash: UUID) -> int:
        """Count a text; returns how often it came before."""
        if self._texts.add(text_hash):
            self._again[text_hash] += 1
        return self._again.get(text_hash, 0)
