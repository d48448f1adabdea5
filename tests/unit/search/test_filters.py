"""Conditions on documents, as users write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.search.filters import parse_filter


def test_patterns_become_like_expressions() -> None:
    values = parse_filter([r"key=100%_a\b/*.tx?", "partition = x"]).values()
    assert values["key"] == [r"100\%\_a\\b/%.tx_"]
    assert values["partition"] == ["x"]


def test_the_narrowest_bounds_hold() -> None:
    values = parse_filter(["size>10", "size>=20", "size<100", "chunk_count=3"]).values()
    assert (values["least_size"], values["greatest_size"]) == (20, 99)
    assert (values["least_chunk_count"], values["greatest_chunk_count"]) == (3, 3)
    assert (values["least_published_version"], values["greatest_published_version"]) == (None, None)


def test_a_date_means_the_whole_day() -> None:
    values = parse_filter(["last_modified=2026-01-31"]).values()
    assert values["least_last_modified"] == datetime(2026, 1, 31, tzinfo=UTC)
    assert values["greatest_last_modified"] == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    after = parse_filter(["last_modified>2026-01-31"]).values()
    assert after["least_last_modified"] == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("condition", ["", "key", "key>a", "colour=red", "size=many", "last_modified=soon", "size=="])
def test_a_malformed_condition_is_refused_with_the_list_of_columns(condition: str) -> None:
    with pytest.raises(ConfigurationError, match="last_modified"):
        parse_filter([condition])


def test_no_condition_is_no_filter() -> None:
    assert not parse_filter([])
    assert parse_filter(["size>1"])


@pytest.mark.parametrize(
    "condition",
    ["size>9223372036854775807", "size=-9223372036854775809", "last_modified<=9999-12-31", "last_modified<0001-01-01"],
)
def test_a_value_that_no_column_can_have_is_refused(condition: str) -> None:
    with pytest.raises(ConfigurationError, match="last_modified"):
        parse_filter([condition])
