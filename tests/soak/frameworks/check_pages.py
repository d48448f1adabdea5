"""The programs of the pages about LlamaIndex, DuckDB and Polars, as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest_pipeline.api import OpenCorpus

_HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"


@pytest.mark.parametrize(
    ("page", "number", "shown"),
    [("llamaindex.md", 0, "guide.md"), ("duckdb_polars.md", 0, "guide.md"), ("duckdb_polars.md", 1, "folder")],
)
def test_the_program_of_the_page_runs(  # noqa: PLR0917  pytest passes them by name
    library: OpenCorpus,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    page: str,
    number: int,
    shown: str,
) -> None:
    config = library.config
    for name in ("source", "lancedb_uri", "database_url", "embedding_model", "corpus", "embedding_dimensions"):
        monkeypatch.setenv(f"INGEST_{name.upper()}", str(getattr(config, name)))
    monkeypatch.setenv("OPENAI_BASE_URL", str(config.embedding_base_url))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    programs = re.findall(r"```python\n(.*?)```", (_HOW_TO / page).read_text(), re.DOTALL)
    exec(programs[number], {"__name__": "page"})  # noqa: S102  it is ours
    assert shown in capfd.readouterr().out
