"""What the command line prints is what there is."""

from __future__ import annotations

import ast
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest_pipeline.cli._output import cost_line, local_time, print_rows
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.types import counted

pytestmark = pytest.mark.promise("error-lines")


def test_brackets_are_shown_and_not_interpreted_as_styles(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("documents", [{"document": "[red]a.txt", "error": "list[int] [/x]"}])
    assert "[red]a.txt" in (out := capsys.readouterr().out)
    assert "list[int] [/x]" in out


_ROOT = Path(__file__).parents[3] / "ingest_pipeline"
# Clears the screen, sets a title, writes from right to left, and half a character.
_COMMANDS = "\x1b[2J\x1b]0;title\x07\x9b1m\u202egnp.exe\udc80"


def test_no_text_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"Error: Document {_COMMANDS} is bad", err=True)
    print_rows(f"rows {_COMMANDS}", [{"document": f"a{_COMMANDS}.txt"}])
    print_json([{"document": _COMMANDS}])
    shown = capsys.readouterr()
    assert not set(shown.out + shown.err) & set(_COMMANDS) - set("2J]0;title1mgnp.exe[")
    assert "\\x1b[2J" in shown.err


def test_json_keeps_the_original_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"document": _COMMANDS})
    assert json.loads(capsys.readouterr().out) == {"document": _COMMANDS}


def test_a_line_break_and_a_tab_stay(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\tb\nc")
    assert capsys.readouterr().out == "a\tb\nc\n"


def test_every_output_goes_through_this_module() -> None:
    """Commands print by `echo`."""
    paths = list(_ROOT.rglob("*.py"))
    assert len(paths) > 100
    found = {
        path.relative_to(_ROOT).as_posix()
        for path in paths
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func) in {"click.echo", "click.secho", "print"}
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert found <= {"cli/_terminal.py"}


def test_a_count_agrees_with_its_noun() -> None:
    assert counted(1, "document") == "1 document"
    assert counted(0, "document") == "0 documents"
    assert counted(1200, "corpus", "corpora") == "1,200 corpora"


def test_a_time_is_in_the_zone_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert local_time(datetime(2001, 12, 31, 20, 5, tzinfo=UTC)) == "01 Jan 2002 05:05"
        # The year is another one in Tokyo in the last hours of December.
        this_year = datetime.now(UTC).astimezone().replace(month=6, day=1, hour=10, minute=2)
        assert local_time(this_year) == "01 Jun 10:02"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_empty_table_is_its_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("There are no batch jobs", [])
    assert capsys.readouterr().out == "There are no batch jobs\n"


def test_a_terminal_gets_lines_that_end_with_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    text = "Nothing was published, because nothing differs.\n  It is in /a/path/that/is/longer/than/the/terminal."
    echo(text)
    assert capsys.readouterr().out == f"{text}\n", "a file gets the line as it is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    echo(text)
    assert capsys.readouterr().out.splitlines() == [
        "Nothing was published,",
        "because nothing differs.",
        "  It is in",
        "  /a/path/that/is/longer/than/the/terminal.",
    ]


def test_the_local_model_costs_nothing() -> None:
    assert (cost_line([]), cost_line([], is_free=True)) == ("no price configured", "at no cost")
