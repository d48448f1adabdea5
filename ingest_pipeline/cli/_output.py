"""Results as tables and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ingest_pipeline.cli._terminal import print_json, printable
from ingest_pipeline.types import counted

if TYPE_CHECKING:
    from ingest_pipeline.ingestion.estimate import Estimate
    from ingest_pipeline.postgres.ledger.embedding_cache import Cost

_MAX_NAMES = 5


def local_time(at: datetime) -> str:
    """A time in the zone of the user, with the year only if it is another one."""
    here = at.astimezone()
    return here.strftime("%d %b %H:%M" if here.year == datetime.now().astimezone().year else "%d %b %Y %H:%M")


def short_id(identifier: object) -> str:
    """The first part of a UUID, as tables show it. `--json` has all of it."""
    return str(identifier).partition("-")[0]


def facts_table(title: str, facts: Sequence[tuple[str, str]]) -> Group:
    """Names and values below each other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(printable(value)))
    return Group(Text(printable(title), "bold"), table)


def rows_table(title: str, rows: Sequence[dict[str, Any]], *, in_one_line: bool = False) -> Group:
    """A table under the common column names of the rows. Without rows, its title alone.

    Args:
        title: The line above it.
        rows: The rows.
        in_one_line: Cut long values at the width of the terminal, instead of folding them.
    """
    heading = Text(printable(title), "bold")
    if not rows:
        return Group(heading)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for column, value in rows[0].items():
        table.add_column(
            column,
            overflow="ellipsis" if in_one_line else "fold",
            no_wrap=in_one_line,
            # A column of numbers is read from its right end.
            justify="right" if isinstance(value, int) else "left",
        )
    for row in rows:
        table.add_row(*(escape(printable(str(value))) for value in row.values()))
    return Group(heading, table)


def print_facts(title: str, facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values below each other."""
    Console().print(facts_table(title, facts))


def print_rows(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print rows as a table under their common column names, or as one JSON value. Without rows, print the title."""
    if as_json:
        print_json(rows)
        return
    Console().print(rows_table(title, rows))


def estimate_line(estimate: Estimate, sensor_runs: int, *, is_free: bool = False) -> str:
    """A sentence with the cost of a plan."""
    line = reembedding_line(estimate, is_free=is_free)
    if not estimate.documents and not estimate.removals:
        return line
    return f"{line} `ingest` does this in 1 run, the sensor in {sensor_runs:,}."


def reembedding_line(estimate: Estimate, *, is_free: bool = False) -> str:
    """A sentence with the number of documents to read and texts to embed, and their cost.

    Args:
        estimate: What it would take.
        is_free: Whether the local model embeds the texts.
    """
    bound = "" if estimate.exact else "at most about "
    cost = f"about {estimate.cost:.4f} {estimate.currency}" if estimate.cost is not None else _no_cost(is_free=is_free)
    if estimate.cost_in_batch is not None:
        cost += f", or {estimate.cost_in_batch:.4f} with `batch`"
    notes = ""
    if estimate.over_limit:
        notes += f" This is {estimate.over_limit}."
    if estimate.too_large:
        one = len(estimate.too_large) == 1
        verb = ("has" if one else "have") if estimate.exact else "may have"
        notes += (
            f" {counted(len(estimate.too_large), 'document')} {verb} more chunks than INGEST_MAX_CHUNKS allows and "
            f"would be refused: {', '.join(estimate.too_large[:_MAX_NAMES])}."
        )
    if estimate.uncertain:
        notes += (
            f" {counted(estimate.uncertain, 'compressed document')} may contain more text than estimated; "
            "`plan --exact` reads the text."
        )
    if estimate.columns_only:
        verb = "changes" if estimate.columns_only == 1 else "change"
        notes += f" {counted(estimate.columns_only, 'more document')} {verb} columns only, which embeds nothing."
    basis = "by the earlier bills of this corpus" if estimate.measured else "at 4 characters per token"
    return (
        f"{counted(estimate.documents, 'document')} to read, {estimate.removals:,} to remove; "
        f"{counted(estimate.chunks, 'chunk')}, {bound}{counted(estimate.to_embed, 'text')} to embed, about "
        f"{counted(estimate.tokens, 'token')} {basis}: {cost}.{notes}"
    )


def _no_cost(*, is_free: bool) -> str:
    return "at no cost" if is_free else "no price configured"


def cost_line(costs: Sequence[Cost], *, is_free: bool = False) -> str:
    """The cost, by currency and date of the price.

    Args:
        costs: The amounts.
        is_free: Whether the local model embeds the texts.
    """
    priced = [
        f"{cost.amount:.4f} {cost.currency} {f'at prices of {cost.as_of}' if cost.as_of else 'reported by enrichers'}"
        for cost in costs
        if cost.amount is not None
    ]
    unpriced = sum(cost.tokens for cost in costs if cost.amount is None)
    if unpriced and priced:
        priced.append(f"{counted(unpriced, 'token')} without a price")
    return "; ".join(priced) or _no_cost(is_free=is_free)


def to_dict(value: Any) -> dict[str, Any]:  # noqa: ANN401  any dataclass of this package
    """A dataclass as a value that can be printed as JSON."""
    return dataclasses.asdict(value)
