"""What a pass of the source sensor counts, and what it lets go."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from ingest_pipeline.orchestration.cursor_position import SourceCursor
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Page
from ingest_pipeline.postgres.catalog.documents import LatestDocument
from ingest_pipeline.types import SourceObject


def gone(count: int, prefix: str = "k") -> list[DocumentPlan]:
    keys = [f"{prefix}{number:04}" for number in range(count)]
    stands = [LatestDocument(key, key, uuid4(), False, "1", 1, "hash", "r", 1, [0]) for key in keys]
    return [DocumentPlan(key, key, None, document) for key, document in zip(keys, stands, strict=True)]


def page(after: str, last: str | None, latest: int, removals: int) -> Page:
    return Page(after, last, removals=gone(removals, after or "a"), latest=latest)


def test_a_corpus_of_one_page_is_judged_at_once() -> None:
    now = SourceCursor()
    assert len(now.advance(page("", None, 30, 15))) == 15
    assert now.ended
    now = SourceCursor()
    assert now.advance(page("", None, 30, 16)) == []
    assert now.is_suspicious


def test_nothing_is_removed_before_the_pass_has_counted_all() -> None:
    now = SourceCursor()
    assert now.advance(page("", "m", 100, 20)) == []
    assert not now.ended
    assert now.advance(page("m", None, 100, 20)) == []
    assert now.ended
    second = now.next
    assert len(second.advance(page("", "m", 100, 20))) == 20
    assert len(second.advance(page("m", None, 100, 20))) == 20


def test_removals_are_judged_over_all_pages() -> None:
    now = SourceCursor()
    for after, last, removals in (("", "c", 0), ("c", "m", 90), ("m", None, 90)):
        assert now.advance(page(after, last, 100, removals)) == []
    assert now.is_suspicious
    assert now.next.removable == 0


def test_no_more_documents_are_removed_than_were_counted() -> None:
    """As when the source becomes empty after the pass that was let through."""
    second = SourceCursor(removable=5)
    assert len(second.advance(page("", "m", 100, 100))) == 5
    assert second.advance(page("m", None, 100, 100)) == []
    assert second.next.removable == 0


def test_a_cursor_continues_and_a_lost_one_begins_again() -> None:
    now = SourceCursor()
    now.advance(page("", "m", 100, 3))
    assert SourceCursor.parse(now.dump()) == now
    assert SourceCursor.parse(None) == SourceCursor()


@pytest.mark.parametrize("cursor", ["", "garbage", "[]", "3", '{"after": "x"}', '{"after": "x", "latest": "many"}'])
def test_a_malformed_cursor_begins_a_pass(cursor: str) -> None:
    assert SourceCursor.parse(cursor) == SourceCursor()


def changed(key: str, modified: int, latest_etag: str | None = None) -> DocumentPlan:
    source = SourceObject(key, "2", 1, datetime.fromtimestamp(modified, UTC))
    latest = latest_etag and LatestDocument(key, key, uuid4(), False, latest_etag, 1, "hash", "r", 1, [0])
    return DocumentPlan(key, key, source, latest or None)


def test_the_lag_is_that_of_the_oldest_change_of_all_pages() -> None:
    now = SourceCursor()
    now.count_lag([*gone(2), changed("a", 300)])
    now.count_lag([changed("b", 500, "1"), changed("c", 400)])
    # A recipe of its own makes it differ, so when the file was modified says nothing.
    now.count_lag([changed("d", 100, "2")])
    now = SourceCursor.parse(now.dump())
    assert now.lag == (6, datetime.fromtimestamp(300, UTC))
    assert now.next.lag == (0, None)
