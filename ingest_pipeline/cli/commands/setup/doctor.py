"""The command `doctor`."""

from __future__ import annotations

import dataclasses
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ingest_pipeline.cli import _settings
from ingest_pipeline.cli._doctor import Finding, Verdict, examine
from ingest_pipeline.cli._group import FAILED, as_json, command
from ingest_pipeline.cli._terminal import echo, print_json, printable
from ingest_pipeline.types import counted

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


@command
@as_json
def doctor(*, as_json: bool) -> None:
    """Check the settings and everything that they name: source, model, table, database, corpus, sensors.

    Embeds one short text, to see that the endpoint answers and how wide its vectors are. The exit status is 1 if there
    is a problem; warnings do not count.
    """
    settings = _settings.settings()
    chosen = _settings.chosen_corpus()
    rename = chosen.origin.renamed if chosen is not None else str
    console = Console()
    found: list[Finding] = []
    for finding in examine(settings):
        one = dataclasses.replace(finding, said=rename(finding.said), remedy=rename(finding.remedy))
        found.append(one)
        if not as_json:
            console.print(_line(one))
    if as_json:
        print_json([dataclasses.asdict(one) for one in found])
    else:
        echo(_summary(found))
    if any(one.verdict == Verdict.PROBLEM for one in found):
        sys.exit(FAILED)


def _line(finding: Finding) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=8)
    table.add_column(width=9)
    table.add_column(overflow="fold")
    said = Text(printable(finding.said.strip().rstrip(".") + "."))
    if finding.remedy:
        said.append("\n" + printable(finding.remedy), "italic")
    table.add_row(Text(finding.verdict, _STYLES[finding.verdict]), finding.check, said)
    return table


def _summary(found: list[Finding]) -> str:
    problems = sum(one.verdict == Verdict.PROBLEM for one in found)
    warnings = sum(one.verdict == Verdict.WARNING for one in found)
    if not problems and not warnings:
        return "Everything is in order."
    return f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}."
