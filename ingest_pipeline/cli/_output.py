"""Results as tables and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest_pipeline.cli._terminal import print_json, printable

if TYPE_CHECKING:
    from ingest_pipeline.ingestion.estimate import Estimate
    from ingest_pipeline.postgres.embedding_cache import Cost
    from ingest_pipeline.search.search import Hit

_MAX_TEXT = 160
_MAX_NAMES = 5


def print_hits(console: Console, question: str, hits: Sequence[Hit]) -> None:
    """Print hits as a table."""
    table = Table(title=escape(printable(question)), title_justify="left")
    has_pages, has_headings = any(hit.page for hit in hits), any(hit.heading for hit in hits)
    columns = ("score", "document", "offsets", *["page"] * has_pages, *["heading"] * has_headings, "text")
    for column in columns:
        table.add_column(column)
    for hit in hits:
        text = " ".join((hit.text if hit.passage is None else hit.passage.text).split())
        cells = [f"{hit.score:.3f}", hit.document, f"{hit.start_offset}-{hit.end_offset}"]
        cells += [_pages(hit)] * has_pages + [hit.heading or ""] * has_headings
        cells.append(text if hit.passage is not None else text[:_MAX_TEXT])
        table.add_row(*map(escape, map(printable, cells)))
    console.print(table)


def _pages(hit: Hit) -> str:
    if hit.page is None:
        return ""
    return str(hit.page) if hit.page == hit.last_page else f"{hit.page}-{hit.last_page}"


def print_rows(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print rows as a table under their common column names, or as one JSON value."""
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
    """A sentence with the cost of a plan."""
    return f"{reembedding_line(estimate)} `ingest` does this in 1 run, the sensor in {sensor_runs}."


def reembedding_line(estimate: Estimate) -> str:
    """A sentence with the number of documents to read and texts to embed, and their cost."""
    bound = "" if estimate.exact else "at most about "
    cost = "no price is configured" if estimate.cost is None else f"about {estimate.cost:.4f} {estimate.currency}"
    if estimate.cost_in_batch is not None:
        cost += f", or {estimate.cost_in_batch:.4f} with `batch`"
    notes = ""
    if estimate.over_limit:
        notes += f" This is {estimate.over_limit}."
    if estimate.too_large:
        verb = "have" if estimate.exact else "may have"
        notes += (
            f" {len(estimate.too_large)} documents {verb} more chunks than INGEST_MAX_CHUNKS allows and would be "
            f"refused: {', '.join(estimate.too_large[:_MAX_NAMES])}."
        )
    if estimate.uncertain:
        notes += (
            f" {estimate.uncertain} compressed documents may contain more text than estimated; `plan --exact` reads "
            "them."
        )
    if estimate.columns_only:
        notes += f" {estimate.columns_only} more documents change columns only, which embeds nothing."
    basis = "by the earlier bills of this corpus" if estimate.measured else "at 4 characters per token"
    return (
        f"{estimate.documents} documents to read, {estimate.removals} to remove; {estimate.chunks} chunks, "
        f"{bound}{estimate.to_embed} texts to embed, about {estimate.tokens} tokens {basis}: {cost}.{notes}"
    )


def cost_line(costs: Sequence[Cost]) -> str:
    """The cost, by currency and date of the price."""
    priced = [
        f"{cost.amount:.4f} {cost.currency} {f'at prices of {cost.as_of}' if cost.as_of else 'reported by enrichers'}"
        for cost in costs
        if cost.amount is not None
    ]
    unpriced = sum(cost.tokens for cost in costs if cost.amount is None)
    if unpriced and priced:
        priced.append(f"{unpriced} tokens without a price")
    return "; ".join(priced) or "no price configured"


def to_dict(value: Any) -> dict[str, Any]:  # noqa: ANN401  any dataclass of this package
    """A dataclass as a value that can be printed as JSON."""
    return dataclasses.asdict(value)
