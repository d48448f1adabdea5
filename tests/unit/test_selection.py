"""What of a source is taken."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.model import SourceObject
from ingest_pipeline.selection import EVERYTHING, Selection

_KEYS = ["a.md", "a.txt", "docs/b.md", "docs/deep/er/c.txt", "docs/drafts/d.md", "drafts/e.txt"]


def taken(selection: Selection, size: int = 10) -> list[str]:
    objects = (SourceObject(key, "1", size, datetime(2026, 1, 1, tzinfo=UTC)) for key in _KEYS)
    return [obj.key for obj in objects if selection.objection(obj) is None]


def test_everything_is_taken_unless_told_otherwise() -> None:
    assert taken(EVERYTHING) == _KEYS


def test_a_name_pattern_holds_at_any_depth() -> None:
    assert taken(Selection(include=["*.md"])) == ["a.md", "docs/b.md", "docs/drafts/d.md"]


def test_two_stars_stand_for_any_number_of_folders() -> None:
    assert taken(Selection(include=["/docs/**/*.txt"])) == ["docs/deep/er/c.txt"]


def test_what_is_excluded_is_left_out_of_what_is_included() -> None:
    assert taken(Selection(include=["*.md"], exclude=["drafts/"])) == ["a.md", "docs/b.md"]


def test_large_objects_are_left_out() -> None:
    assert taken(Selection(max_bytes=9)) == []
    assert taken(Selection(max_bytes=10)) == _KEYS


def test_a_reason_is_given() -> None:
    obj = SourceObject("a.md", "1", 10, datetime(2026, 1, 1, tzinfo=UTC))
    reasons = [Selection(["*.txt"]), Selection([], ["*.md"]), Selection(max_bytes=5)]
    assert [selection.objection(obj) for selection in reasons] == ["not included", "excluded", "larger than 5 bytes"]


def test_a_pattern_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigurationError, match="INGEST_EXCLUDE"):
        Selection(exclude=["*.md", "[z-a]"])
