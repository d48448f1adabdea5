"""Results as tables for people, or as one JSON value for programs."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest_pipeline.ingestion.estimate import Estimate
from ingest_pipeline.postgres.ledger import Cost
from ingest_pipeline.search.search import Hit

_SHOWN = 160
_NAMED = 5
# Controls other than newline and tab, half characters, and what turns the direction of text.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text without what a terminal takes for a command, or for a direction to write in: shown as an escape."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def echo(text: str, *, err: bool = False) -> None:
    """Print text, whatever names, texts and errors it quotes."""
    click.echo(printable(text), err=err)


def print_hits(console: Console, question: str, hits: Sequence[Hit]) -> None:
    """Show hits as a table."""
    table = Table(title=escape(printable(question)), title_justify="left")
    for column in ("score", "document", "offsets", "text"):
        table.add_column(column)
    for hit in hits:
        text = " ".join(hit.text.split())
        cells = (f"{hit.score:.3f}", hit.document, f"{hit.start_offset}-{hit.end_offset}", text[:_SHOWN])
        table.add_row(*map(escape, map(printable, cells)))
    console.print(table)


def print_rows(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool = False) -> None:
    """Show rows under their common column names."""
    if as_json:
        print_json(rows)
        return
    table = Table(title=printable(title), title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(str(value))) for value in row.values()))
    Console().print(table)


def estimate_line(estimate: Estimate, sensor_runs: int) -> str:
    """What a plan would take, in a sentence."""
    return f"{reembedding_line(estimate)} One run by `ingest`, {sensor_runs} by the sensor."


def reembedding_line(estimate: Estimate) -> str:
    """What has to be read and bought."""
    bound = "" if estimate.exact else "at most about "
    cost = "no price is configured" if estimate.cost is None else f"about {estimate.cost:.4f} {estimate.currency}"
    if estimate.cost_in_batch is not None:
        cost += f", {estimate.cost_in_batch:.4f} by `bulk`"
    notes = ""
    if estimate.over_limit:
        notes += f" This is {estimate.over_limit}."
    if estimate.too_large:
        verb = "have" if estimate.exact else "may have"
        notes += (
            f" {len(estimate.too_large)} documents {verb} more chunks than INGEST_MAX_CHUNKS allows, and are then "
            f"refused: {', '.join(estimate.too_large[:_NAMED])}."
        )
    if estimate.uncertain:
        notes += f" {estimate.uncertain} compressed documents may hold more text than this: `plan --exact` reads them."
    basis = "as this corpus was billed before" if estimate.measured else "at 4 characters to a token"
    return (
        f"{estimate.documents} documents to read, {estimate.removals} to take out; {estimate.chunks} chunks, "
        f"{bound}{estimate.to_embed} embeddings to buy, about {estimate.tokens} tokens {basis}: {cost}.{notes}"
    )


def cost_line(costs: Sequence[Cost]) -> str:
    """What was spent, by currency and day of the price."""
    priced = [
        f"{cost.amount:.4f} {cost.currency} at prices of {cost.as_of}" for cost in costs if cost.amount is not None
    ]
    unpriced = sum(cost.tokens for cost in costs if cost.amount is None)
    if unpriced and priced:
        priced.append(f"{unpriced} tokens without a price")
    return "; ".join(priced) or "no price configured"


def plain(value: Any) -> dict[str, Any]:  # noqa: ANN401  a dataclass of ours, whichever
    """A dataclass as what JSON can say."""
    return dataclasses.asdict(value)


def print_json(value: object) -> None:
    """Print one JSON value; what JSON has no word for is printed as text."""
    # JSON's own escapes say the same, and move no cursor.
    said = json.dumps(value, default=str, ensure_ascii=False, indent=2)
    click.echo(_COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", said))
