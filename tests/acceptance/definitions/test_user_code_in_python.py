"""Objects of the user's classes that are given to the component in Python, through a run and a plan."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline import IngestPipelineComponent, open_corpus
from tests.support.user_code import Lines, ObedientChunker, Title


def test_objects_given_to_the_component_work_in_a_run(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATALOG_URL", database_url)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.lines").write_text("some words\nmore words\n")
    (tmp_path / "documents" / "b.txt").write_text("plain words\n")
    component = IngestPipelineComponent(
        corpus="docs",
        source="documents",
        database_url=dg.EnvVar("CATALOG_URL"),
        columns={"lines": "int", "title": "string"},
        parser=Lines(upper=True),
        chunker=ObedientChunker(),
        enricher=[Title()],
    )
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    with dg.instance_for_test() as instance:
        run = definitions.resolve_job_def("docs_ingest_job").execute_in_process(instance=instance)
    assert run.success
    config = component.config(tmp_path).replace(database_url=database_url)
    with open_corpus(config) as corpus:
        (hit,) = corpus.search("words", mode="text", where=["title=SOME WORDS", "lines=2"], limit=1)
        assert corpus.plan() == []
        assert corpus.audit().violations == []
    assert (hit.document, hit.text.strip()) in {("a.lines", "SOME WORDS"), ("a.lines", "MORE WORDS")}
