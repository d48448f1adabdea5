"""The programs that the documents show, run as they stand but for where things lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.dagster.cli import Cli
from tests.support.servers.embedding_server import TEST_MODEL, EmbeddingServer

_HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"


def program(page: str) -> str:
    found = re.search(r"```python\n(.*?)```", (_HOW_TO / page).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_search_of_the_documentation_runs(
    tmp_path: Path, database_url: str, embeddings: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli.over(tmp_path, database_url, embeddings)
    cli.environment["INGEST_CORPUS"] = "documents"
    cli.put("guide/exceptions.txt", "Exceptions are handled where a handler stands. " * 3)
    cli.put("guide/short.txt", "Exceptions.")
    cli.put("other.txt", "Exceptions are handled elsewhere, too. " * 4)
    done = cli.json("ingest")
    there = {
        "PostgresCatalogResource()": f"PostgresCatalogResource(url={database_url!r})",
        '".ingest_pipeline/lancedb"': repr(str(tmp_path / "state" / "lancedb")),
        "OpenAIEmbedderResource()": (
            f"OpenAIEmbedderResource(model={TEST_MODEL!r}, dimensions={embeddings.dimensions}, "
            f"base_url={embeddings.base_url!r})"
        ),
    }
    source = program("search.md")
    for here, where in there.items():
        assert here in source
        source = source.replace(here, where)
    capsys.readouterr()
    exec(source, {})  # noqa: S102  it is ours
    (line,) = capsys.readouterr().out.splitlines()
    assert f"guide/exceptions.txt[0:140] version {done['version']}" in line
