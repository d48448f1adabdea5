"""Objects that are kept between two reads."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from ingest_pipeline.sources.object_cache import KeptObjects
from ingest_pipeline.types import SourceObject


def obj(key: str, size: int, etag: str = "1") -> SourceObject:
    return SourceObject(key, etag, size, datetime(2026, 1, 1, tzinfo=UTC))


def test_an_object_is_kept_until_it_is_taken() -> None:
    kept = KeptObjects(10)
    assert list(kept.keep(obj("a", 4), [b"ab", b"cd"])) == [b"ab", b"cd"]
    assert kept.take(obj("a", 4, "2")) is None
    assert kept.take(obj("a", 4)) == [b"ab", b"cd"]
    assert kept.take(obj("a", 4)) is None


def test_no_more_bytes_are_kept_than_allowed_and_taking_frees_them() -> None:
    kept = KeptObjects(10)
    for key in ("a", "b"):
        assert list(kept.keep(obj(key, 6), [b"abcdef"])) == [b"abcdef"]
    assert kept.take(obj("b", 6)) is None
    assert kept.take(obj("a", 6)) == [b"abcdef"]
    assert list(kept.keep(obj("b", 6), [b"abcdef"])) == [b"abcdef"]
    assert kept.take(obj("b", 6)) == [b"abcdef"]


def test_a_read_that_breaks_off_keeps_nothing() -> None:
    kept = KeptObjects(10)
    for _ in range(3):
        with suppress(StopIteration):
            blocks = kept.keep(obj("a", 6), iter([b"abc", b"def"]))
            assert next(blocks) == b"abc"
            blocks.close()
    assert kept.take(obj("a", 6)) is None
    assert list(kept.keep(obj("b", 10), [b"0123456789"])) == [b"0123456789"]
    assert kept.take(obj("b", 10)) == [b"0123456789"]


def test_an_object_that_is_read_twice_takes_its_bytes_once() -> None:
    kept = KeptObjects(10)
    for _ in range(2):
        assert list(kept.keep(obj("a", 5), [b"abcde"])) == [b"abcde"]
    assert list(kept.keep(obj("b", 5), [b"fghij"])) == [b"fghij"]
    assert kept.take(obj("b", 5)) == [b"fghij"]
    assert kept.take(obj("a", 5)) == [b"abcde"]
    assert kept.take(obj("a", 5)) is None


def test_64_mb_are_kept_unless_another_limit_is_given() -> None:
    kept, limit = KeptObjects(), 64 << 20
    for size, blocks in ((limit + 1, None), (limit, [b"a"])):
        assert list(kept.keep(obj("a", size), [b"a"])) == [b"a"]
        assert kept.take(obj("a", size)) == blocks
