"""The environment, the component and the reference page have the same settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingest_pipeline.config import Settings
from ingest_pipeline.orchestration.component import IngestPipelineComponent

ROOT = Path(__file__).parents[2]


class _Noted(Mapping[str, str]):
    """An empty environment that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_the_reference_lists_the_variables_that_are_read() -> None:
    page = ROOT / "docs" / "reference" / "configuration.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `INGEST_")]
    listed = {name for row in rows for name in re.findall(r"`(INGEST_[A-Z_]+)`", row.split("|")[1])}
    assert listed == _variables()


def test_the_component_has_an_attribute_for_each_variable() -> None:
    attributes = set(IngestPipelineComponent.model_fields)
    assert {name.removeprefix("INGEST_").lower() for name in _variables()} - attributes == set()


def _variables() -> set[str]:
    environment = _Noted()
    Settings.from_environment(environment)
    return {name for name in environment.asked if name.startswith("INGEST_")}


def test_what_this_package_keeps_below_the_source_is_no_document(tmp_path: Path) -> None:
    def patterns(**environment: str) -> set[str]:
        return set(Settings.from_environment(environment).exclude)

    state = str(tmp_path / "[x] y")
    assert patterns(INGEST_SOURCE=str(tmp_path), INGEST_STATE=state, INGEST_EXCLUDE="*.log") == {
        "*.log",
        r"/\[x\]\ y/dagster/",
        r"/\[x\]\ y/lancedb/",
        r"/\[x\]\ y/postgres/",
    }
    elsewhere = str(tmp_path / "documents")
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state) == set()
    assert patterns(INGEST_SOURCE="s3://bucket/x", INGEST_STATE=state) == set()
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, INGEST_LANCEDB_URI=f"{elsewhere}/t") == {"/t/"}
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, DAGSTER_HOME=f"{elsewhere}/d") == {"/d/"}
    assert patterns(INGEST_SOURCE=elsewhere, INGEST_STATE=state, DAGSTER_HOME=str(tmp_path)) == set()
