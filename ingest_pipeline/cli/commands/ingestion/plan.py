"""The command `plan`, which shows what an ingest would do and cost."""

from __future__ import annotations

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
from ingest_pipeline.planning.plan import DocumentPlan, runs_for
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.source_comparison import Planner
from ingest_pipeline.types import counted


@command
@click.option("--exact", is_flag=True, help="Read and chunk the documents, and look up which vectors exist.")
@as_json
def plan(*, exact: bool, as_json: bool) -> None:
    """Show which documents differ and what ingesting them would cost. Embeds nothing."""
    settings = _settings.settings()
    with _session.context(settings) as context:
        page = Planner(context).page()
        withheld = check_removals(context, page.removals)
        guard = RecipeGuard(context)
        puts, left = without_final(context, page.puts)
        plans = [*puts, *page.removals]
        expected = count(context, plans) if exact else estimate(context, plans)
        wanted = settings
        note, moving = model_mismatch(context, wanted), estimate_reembedding(context, wanted)
        nothing = None if page.puts or page.removals or page.on_hold or page.blocked else nothing_found(context)
    left_alone = {failure.key: "unreadable" if failure.unreadable else "in quarantine" for failure in left}
    unreadable = [UnreadableDocument(found.key, found.reason, found.error) for found in left if found.unreadable]
    unreadable += expected.unreadable
    changes: list[tuple[DocumentPlan, str]] = [
        *((plan, "columns" if is_columns_only(context, plan) else plan.change) for plan in plans),
        *((plan, "on hold") for plan in page.on_hold),
        *((plan, "blocked") for plan in page.blocked),
        *((plan, left_alone[plan.key]) for plan in page.puts if plan.key in left_alone),
    ]
    rows = [
        {
            "document": plan.key,
            "partition": plan.partition,
            "change": change,
            "bytes": plan.source.size if plan.source else 0,
        }
        for plan, change in sorted(changes, key=lambda change: change[0].key)
    ]
    sensor_runs = runs_for(len(plans))
    if as_json:
        estimates = {"estimate": to_dict(expected), "reembedding": moving and to_dict(moving)}
        found = {"unreadable": reasons_of(unreadable), "unreadable_documents": list(map(to_dict, unreadable))}
        print_json({"documents": rows, **found, **estimates, "sensor_runs": sensor_runs})
        return
    print_rows(
        f"{counted(len(rows), 'document')} {'differs' if len(rows) == 1 else 'differ'}"
        + (f"; {len(page.blocked)} of them blocked by gates" if page.blocked else "")
        + (f"; {len(page.on_hold)} of them on hold after a rollback" if page.on_hold else "")
        + (f"; {len(left)} of them skipped, because they cannot be read or failed too often" if left else ""),
        rows,
    )
    if not rows and not nothing:
        echo(f"Corpus {settings.corpus} agrees with {settings.source}.")
    if plans or expected.documents:
        echo(estimate_line(expected, sensor_runs, is_free=settings.uses_local_model))
    if unreadable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in reasons_of(unreadable).items())
        problems = [{**to_dict(one), "problem": renamed(one.problem)} for one in unreadable]
        print_rows(f"{counted(len(unreadable), 'document')} cannot be read: {reasons}", problems)
    if note is not None and moving is not None:
        echo(f"{note} Re-embedding costs: {reembedding_line(moving, is_free=settings.uses_local_model)}")
    if page.excluded:
        left_out = [{"document": key, "reason": reason} for key, reason in page.excluded_keys.items()]
        print_rows(f"{counted(page.excluded.total(), 'object')} excluded", left_out)
    for warning in (withheld or nothing, guard.error):
        if warning:
            echo(f"Warning: {renamed(str(warning))}", err=True)
