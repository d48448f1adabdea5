"""Partition keys: any document's, and none that Dagster breaks on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.partitioning import FILE, PartitionScheme, key_of

partition_of = FILE.partition_of

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
def test_partitions_contain_no_characters_that_dagster_breaks_on(key: str) -> None:
    partition = partition_of(key)
    assert "..." not in partition
    assert not set(partition) & set(",*[]\\\"'|\n")
    assert partition == partition.strip()


def test_ordinary_keys_are_not_changed() -> None:
    for key in ("a.txt", "folder/b-c_d.md", "2026/11/report v2 (final).pdf", "日本語.txt"):
        assert partition_of(key) == key


def test_a_long_key_is_cut_and_stays_unique() -> None:
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


FOLDER, FOLDERS, BUCKET = (PartitionScheme.parse(text) for text in ("folder", "folder:2", "bucket:64"))


@pytest.mark.parametrize("text", ["", "files", "folder:0", "folder:x", "bucket", "bucket:0", "bucket:99999", "file:1"])
def test_an_unknown_scheme_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="partition scheme"):
        PartitionScheme.parse(text)


@pytest.mark.parametrize("text", ["file", "folder:1", "folder:3", "bucket:1", "bucket:64"])
def test_a_scheme_is_written_as_it_was_parsed(text: str) -> None:
    assert str(PartitionScheme.parse(text)) == text
    assert str(FOLDER) == "folder:1"


def test_a_folder_scheme_goes_by_the_first_levels_and_leaves_the_top_level_alone() -> None:
    keys = ["a.txt", "a/b.txt", "a/b/c.txt", "a/b/c/d.txt"]
    assert [FOLDER.partition_of(key) for key in keys] == ["a.txt", "a/", "a/", "a/"]
    assert [FOLDERS.partition_of(key) for key in keys] == ["a.txt", "a/", "a/b/", "a/b/"]


def test_a_folder_and_a_document_of_the_same_name_are_two_partitions() -> None:
    assert FOLDER.partition_of("a") != FOLDER.partition_of("a/x")


@pytest.mark.parametrize("key", [f"{key}/x" for key in HOSTILE if key] + ["..."])
def test_a_folder_partition_knows_where_its_documents_are(key: str) -> None:
    partition = FOLDERS.partition_of(key)
    assert not set(partition) & set(",*[]\\\"'|\n")
    assert "..." not in partition
    folder = FOLDERS.folder_of(partition)
    assert FOLDERS.document_of(partition) == key or key.startswith(folder)


def test_all_buckets_exist_and_documents_spread_over_them() -> None:
    assert BUCKET.partitions == [f"{number:02}" for number in range(64)]
    counts = dict.fromkeys(BUCKET.partitions or (), 0)
    for number in range(6400):
        counts[BUCKET.partition_of(f"docs/{number}.txt")] += 1
    assert 50 < min(counts.values()) <= max(counts.values()) < 160
    assert (FILE.partitions, FOLDER.partitions) == (None, None)


def test_a_bucket_is_the_same_for_ever() -> None:
    assert [BUCKET.partition_of(key) for key in ("a.txt", "b/c.md")] == ["53", "22"]
