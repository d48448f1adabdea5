"""Texts are counted exactly, in a few bytes each."""

import random
import sys
from collections import Counter
from uuid import UUID

from ingest_pipeline.preparation.seen_texts import CompactHashSet, OccurrenceCounter
from ingest_pipeline.types import text_hash


def test_occurrences_are_counted_from_zero_for_each_text() -> None:
    chance = random.Random(1)
    hashes = [text_hash(str(chance.randrange(3000))) for _ in range(10_000)]
    counts, expected = OccurrenceCounter(), Counter[UUID]()
    for hashed in hashes:
        assert counts.count(hashed) == expected[hashed]
        expected[hashed] += 1


def test_a_set_holds_what_was_added_and_nothing_else() -> None:
    added = [text_hash(f"text {number}") for number in range(5000)]
    texts = CompactHashSet()
    assert not any(texts.add(hashed) for hashed in added)
    assert all(hashed in texts for hashed in added)
    assert all(texts.add(hashed) for hashed in added)
    assert not any(text_hash(f"other {number}") in texts for number in range(5000))


def test_a_text_takes_sixteen_bytes_at_most() -> None:
    chance, texts, count = random.Random(2), CompactHashSet(), 300_000
    for _ in range(count):
        texts.add(UUID(int=chance.getrandbits(128)))
    assert sum(sys.getsizeof(bucket) for bucket in texts.buckets.values()) < 16 * count
