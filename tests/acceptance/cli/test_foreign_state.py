"""A source folder with the state folder of another project in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.dagster.cli import Cli
from tests.support.world import paragraphs

pytestmark = pytest.mark.promise("secrets")


def test_a_plan_has_no_file_of_the_state_folder_of_another_project(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    cli.put("a.txt", paragraphs("alpha", 2))
    cli.json("ingest")
    shutil.copytree(tmp_path / "state", tmp_path / "source" / "old" / "kept")
    assert [row["document"] for row in cli.json("plan", INGEST_CORPUS="second")["documents"]] == ["a.txt"]
    shown = re.sub(r" +", " ", cli.run("plan", INGEST_CORPUS="second").stdout)
    assert "2 objects excluded" in shown
    assert "\nold/kept/dagster/ home of Dagster\nold/kept/lancedb/docs.lance/ LanceDB table" in shown
