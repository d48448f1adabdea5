"""Partition keys: any document's, and none that Dagster breaks on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.partitioning import key_of, partition_of

HOSTILE = [
    "a'b\"c",
    "a...b",
    "a,b",
    "a\nb",
    "héllo/日本.txt",
    "x" * 300,
    "../x",
    " a ",
    "a*[b]",
    "50%2F",
    "",
    "a\\b",
    "....",
]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_survives(key: str) -> None:
    assert key_of(partition_of(key)) == key


@pytest.mark.parametrize("key", HOSTILE)
def test_what_dagster_breaks_on_is_not_in_a_partition(key: str) -> None:
    partition = partition_of(key)
    assert "..." not in partition
    assert not set(partition) & set(",*[]\\\"'|\n")
    assert partition == partition.strip()


def test_ordinary_keys_are_left_as_they_are() -> None:
    for key in ("a.txt", "folder/b-c_d.md", "2026/11/report v2 (final).pdf", "日本語.txt"):
        assert partition_of(key) == key


def test_a_long_key_is_cut_and_stays_its_own() -> None:
    first, second = partition_of("x" * 2000 + "a"), partition_of("x" * 2000 + "b")
    assert first != second
    assert len(first.encode()) <= 512
    assert key_of(first) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_different_keys_have_different_partitions_and_come_back(key: str) -> None:
    partition = partition_of(key)
    assert key_of(partition) in {key, None}


@given(st.text(min_size=600, max_size=700, alphabet="aé日~"))
def test_no_partition_is_too_long_for_an_index(key: str) -> None:
    assert len(partition_of(key).encode()) <= 512
