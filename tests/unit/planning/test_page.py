"""The range of keys of a page, and what the page says of keys in it."""

from __future__ import annotations

import pytest

from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.source_comparison import Page


def plan(key: str) -> DocumentPlan:
    return DocumentPlan(key, key, None, None)


@pytest.mark.parametrize(
    ("after", "last", "covered"),
    [("", None, "abcde"), ("b", None, "cde"), ("", "d", "abcd"), ("b", "d", "cd"), ("b", "b", "")],
)
def test_a_range_begins_after_a_key_and_includes_its_last(after: str, last: str | None, covered: str) -> None:
    page = Page(after, last)
    assert [key for key in "abcde" if page.covers(key)] == list(covered)


def test_keys_are_unchanged_if_they_are_in_the_range_and_differ_in_no_way() -> None:
    page = Page("a", "g", puts=[plan("b")], removals=[plan("c")], on_hold=[plan("d")], too_recent=["e"])
    assert page.plans == [plan("b"), plan("c")]
    assert page.unchanged("abcdefgh") == ["f", "g"]


def test_all_excluded_objects_are_counted_and_the_first_thousand_are_named() -> None:
    page = Page()
    page.exclude((f"{number:04}", "excluded") for number in range(600))
    page.exclude((f"{number:04}", "too large") for number in range(600, 1500))
    assert page.excluded == {"excluded": 600, "too large": 900}
    assert list(page.excluded_keys) == [f"{number:04}" for number in range(1000)]
    assert page.excluded_keys["0999"] == "too large"
