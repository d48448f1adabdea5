"""What the command line prints is what there is."""

from __future__ import annotations

import pytest

from ingest_pipeline.output import print_rows


def test_brackets_are_shown_and_not_taken_for_styles(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("documents", [{"document": "[red]a.txt", "error": "list[int] [/x]"}])
    assert "[red]a.txt" in (out := capsys.readouterr().out)
    assert "list[int] [/x]" in out
