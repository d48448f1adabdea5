"""`doctor` and a store that loses what two writers make at once."""

from __future__ import annotations

import pytest

from ingest_pipeline.cli import _doctor
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import UnsafeStoreError

SETTINGS = CorpusConfig(corpus="docs", source="documents", lancedb_uri="s3://bucket/tables")


def test_a_store_without_conditional_writes_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def refuse(uri: str) -> None:
        checked.append(uri)
        raise UnsafeStoreError("The store overwrites what is there")

    monkeypatch.setattr(_doctor, "check_store", refuse)
    (found,) = _doctor.checked("table", lambda: _doctor.examine_table(SETTINGS))
    assert (found.verdict, found.said) == (_doctor.Verdict.PROBLEM, "The store overwrites what is there")
    assert found.remedy
    monkeypatch.setattr(_doctor, "check_store", checked.append)
    (found,) = _doctor.examine_table(SETTINGS)
    assert found.verdict == _doctor.Verdict.OK
    assert checked == ["s3://bucket/tables/docs.lance"] * 2
