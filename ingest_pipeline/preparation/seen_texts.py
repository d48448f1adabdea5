"""Records which texts occurred, in 8 bytes each. A large document has millions of them; a set takes 200 bytes each.

A text is identified by the first 64 bits of its hash. If two texts ever share them, the second counts as a repetition
of the first: its vector is looked up without success, or its chunk gets the id of a second occurrence. Both are valid.
"""

from __future__ import annotations

from array import array
from collections import Counter
from uuid import UUID

# With a million texts, a bucket has about sixty, and a search in it takes a microsecond.
_BUCKETS = 1 << 14


class CompactHashSet:
    """A set of text hashes."""

    def __init__(self) -> None:
        self.buckets: dict[int, array[int]] = {}

    def add(self, text_hash: UUID) -> bool:
        """Add a text. Returns whether it was already there."""
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
    """Counts how often each text occurs."""

    def __init__(self) -> None:
        self._texts = CompactHashSet()
        self._again: Counter[UUID] = Counter()

    def count(self, text_hash: UUID) -> int:
        """Count a text. Returns how often it occurred before."""
        if self._texts.add(text_hash):
            self._again[text_hash] += 1
        return self._again.get(text_hash, 0)
