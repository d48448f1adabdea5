"""What a storm leaves for those who look for the reason of a violation."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.storm.figures import Figures
from tools.storm import keep_log


def test_the_log_of_a_violated_storm_is_beside_its_folder_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, working = tmp_path / "storm", tmp_path / "checkout"
    directory.mkdir()
    working.mkdir()
    monkeypatch.chdir(working)
    (directory / "ui.log").write_text("a traceback")
    figures = Figures(7)
    keep_log(directory, figures)
    shown = StringIO()
    figures.show(Console(file=shown, width=400))
    assert (tmp_path / "storm-ui.log").read_text() == "a traceback"
    assert f"note: the log of `ui` is {tmp_path / 'storm-ui.log'}" in shown.getvalue()
    assert list(working.iterdir()) == []
