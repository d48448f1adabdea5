"""The command `plan`, which shows what an ingest would do and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command, renamed
from ingest_pipeline.cli._output import estimate_line, print_rows, reembedding_line, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.ingestion.columns.column_changes import is_columns_only
from ingest_pipeline.ingestion.estimate import UnreadableDocument, count, estimate, reasons_of
from ingest_pipeline.ingestion.named_documents import nothing_found
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.ingestion.reembed import estimate_reembedding, model_mismatch
from ingest_pipeline.planning.backoff import without_final
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan, runs_for
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.source_comparison import (
    MAX_EXCLUDED_KEYS,
    Page,
    Planner,
)
from ingest_pipeline.postgres.ledger.failures import Failure
from ingest_pipeline.types import counted

# A table of a million rows would take minutes to draw.
_MAX_ROWS = 10_000


@dataclass(slots=True)
class _Difference:
    """What a comparison found, without its plans: they would not fit into memory if millions of documents differ.

    Args:
        context: The open corpus with its source.
        max_rows: Rows to keep. None: all.
    """

    context: IngestContext
    max_rows: int | None
    rows: list[dict[str, str | int]] = field(default_factory=list[dict[str, str | int]])
    """The first documents that differ, by key."""
    documents: int = 0
    """Documents that differ."""
    puts: int = 0
    removals: int = 0
    on_hold: int = 0
    blocked: int = 0
    left: list[Failure] = field(default_factory=list[Failure])
    """Failures of documents that a run over everything skips."""
    excluded: Counter[str] = field(default_factory=Counter[str])
    excluded_keys: dict[str, str] = field(default_factory=dict[str, str])

    def tried(self, pages: Iterable[Page]) -> Iterator[DocumentPlan]:
        """Add the pages. Yields the documents that an ingest would publish."""
        for page in pages:
            tried, left = without_final(self.context, page.puts)
            self._add(page, {one.key: "unreadable" if one.unreadable else "in quarantine" for one in left})
            self.left += left
            yield from tried
            yield from page.removals

    def _add(self, page: Page, left_alone: Mapping[str, str]) -> None:
        withheld = (*((plan, "on hold") for plan in page.on_hold), *((plan, "blocked") for plan in page.blocked))
        changes = [(plan, left_alone.get(plan.key) or self._change(plan)) for plan in page.plans]
        for plan, change in sorted([*changes, *withheld], key=lambda one: one[0].key):
            self.documents += 1
            if self.max_rows is None or len(self.rows) < self.max_rows:
                size = plan.source.size if plan.source else 0
                self.rows.append({"document": plan.key, "partition": plan.partition, "change": change, "bytes": size})
        self.puts += len(page.puts)
        self.removals += len(page.removals)
        self.on_hold += len(page.on_hold)
        self.blocked += len(page.blocked)
        self.excluded += page.excluded
        room = MAX_EXCLUDED_KEYS - len(self.excluded_keys)
        self.excluded_keys |= dict(islice(page.excluded_keys.items(), room))

    def _change(self, plan: DocumentPlan) -> str:
        return "columns" if is_columns_only(self.context, plan) else plan.change

    @property
    def title(self) -> str:
        """How many documents differ, and how many of these are not ingested."""
        return (
            f"{counted(self.documents, 'document')} {'differs' if self.documents == 1 else 'differ'}"
            + (f"; {self.blocked} of them blocked by gates" if self.blocked else "")
            + (f"; {self.on_hold} of them on hold after a rollback" if self.on_hold else "")
            + (
                f"; {len(self.left)} of them skipped, because they cannot be read or failed too often"
                if self.left
                else ""
            )
        )


@command
@click.option("--exact", is_flag=True, help="Read and chunk the documents, and look up which vectors exist.")
@as_json
def plan(*, exact: bool, as_json: bool) -> None:
    """Show which documents differ and what ingesting them would cost. Embeds nothing."""
    settings = _settings.settings()
    with _session.context(settings) as context:
        found, planner = _Difference(context, None if as_json else _MAX_ROWS), Planner(context)
        if exact:  # reading takes too long for one transaction
            expected = count(context, found.tried(planner.pages()))
        else:
            expected = estimate(context, found.tried(planner.one_pass()))
        withheld = check_removals(context, found.removals)
        guard = RecipeGuard(context)
        note, moving = model_mismatch(context, settings), estimate_reembedding(context, settings)
        nothing = None if found.documents else nothing_found(context)
    unreadable = [UnreadableDocument(one.key, one.reason, one.error) for one in found.left if one.unreadable]
    unreadable += expected.unreadable
    sensor_runs = runs_for(found.puts - len(found.left) + found.removals)
    if as_json:
        estimates = {"estimate": to_dict(expected), "reembedding": moving and to_dict(moving)}
        problems = {"unreadable": reasons_of(unreadable), "unreadable_documents": list(map(to_dict, unreadable))}
        print_json({"documents": found.rows, **problems, **estimates, "sensor_runs": sensor_runs})
        return
    _print_rows(found)
    if not found.documents and not nothing:
        echo(f"Corpus {settings.corpus} agrees with {settings.source}.")
    if expected.documents or expected.removals or expected.columns_only:
        echo(estimate_line(expected, sensor_runs, is_free=settings.uses_local_model))
    _print_unreadable(unreadable)
    if note is not None and moving is not None:
        echo(f"{note} Re-embedding costs: {reembedding_line(moving, is_free=settings.uses_local_model)}")
    if found.excluded:
        left_out = [{"document": key, "reason": reason} for key, reason in found.excluded_keys.items()]
        print_rows(f"{counted(found.excluded.total(), 'object')} excluded", left_out)
    for warning in (withheld or nothing, guard.error):
        if warning:
            echo(f"Warning: {renamed(str(warning))}", err=True)


def _print_rows(found: _Difference) -> None:
    print_rows(found.title, found.rows)
    more = found.documents - len(found.rows)
    if more:
        echo(f"{counted(more, 'more document')} {'differs' if more == 1 else 'differ'}; `plan --json` lists all.")


def _print_unreadable(unreadable: Sequence[UnreadableDocument]) -> None:
    if unreadable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in reasons_of(unreadable).items())
        problems = [{**to_dict(one), "problem": renamed(one.problem)} for one in unreadable]
        print_rows(f"{counted(len(unreadable), 'document')} cannot be read: {reasons}", problems)
