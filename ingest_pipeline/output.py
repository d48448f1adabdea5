"""Results as tables for people, or as one JSON value for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ingest_pipeline.search import Hit

_SHOWN = 160


def print_hits(console: Console, question: str, hits: Sequence[Hit]) -> None:
    """Show hits as a table."""
    table = Table(title=question, title_justify="left")
    for column in ("score", "document", "offsets", "text"):
        table.add_column(column)
    for hit in hits:
        text = " ".join(hit.text.split())
        table.add_row(f"{hit.score:.3f}", hit.document, f"{hit.start_offset}-{hit.end_offset}", text[:_SHOWN])
    console.print(table)


def print_rows(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool = False) -> None:
    """Show rows under their common column names."""
    if as_json:
        print_json(rows)
        return
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def plain(value: Any) -> dict[str, Any]:  # noqa: ANN401  a dataclass of ours, whichever
    """A dataclass as what JSON can say."""
    return dataclasses.asdict(value)


def print_json(value: object) -> None:
    """Print one JSON value; what JSON has no word for is printed as text."""
    click.echo(json.dumps(value, default=str, ensure_ascii=False, indent=2))
