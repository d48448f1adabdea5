"""Where the tables of a corpus may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.options.stores import absolute_location
from ingest_pipeline.errors import ConfigurationError


def uri_of(uri: str) -> str:
    return CorpusConfig.from_environment({"INGEST_SOURCE": "x", "INGEST_LANCEDB_URI": uri}).lancedb_uri


@pytest.mark.parametrize(
    "uri",
    [
        "lake/chunks.lance",
        "lake/chunks.lance/data/",
        "/lake/a/chunks.lance/data/b",
        "file:///lake/chunks.lance/data",
        "s3://lake/a/chunks.lance/data",
        "gs://me:hunter2@lake/chunks.lance",
    ],
)
def test_tables_inside_another_table_are_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^INGEST_LANCEDB_URI is '") as refused:
        uri_of(uri)
    assert "Set INGEST_LANCEDB_URI to the folder that contains 'chunks.lance'" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_relative_folder_inside_another_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chunks.lance" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "chunks.lance" / "data")
    with pytest.raises(ConfigurationError, match=r"the folder that contains 'chunks\.lance'"):
        uri_of("tables")


@pytest.mark.parametrize("uri", ["lake", "/lake.lanced/x", "/a/.lance/x", "s3://bucket.lance/x", "s3://lake/lance"])
def test_other_folders_are_accepted(uri: str) -> None:
    assert uri_of(uri) == absolute_location(uri)
