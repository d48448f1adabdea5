"""The commands `ingest` and `retry`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click
from rich.console import Console

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import KEY, as_json, command, exit_with, renamed
from ingest_pipeline.cli._numbers import WholeNumber
from ingest_pipeline.cli._output import cost_line, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.errors import UnknownDocumentError
from ingest_pipeline.ingestion.context import release_holds
from ingest_pipeline.planning.run_backoff import forgive_runs
from ingest_pipeline.postgres.ledger import erasures, failures
from ingest_pipeline.types import counted


@command
@click.argument("keys", type=KEY, nargs=-1, metavar="[KEY]...")
@click.option(
    "--confirm-removals", is_flag=True, help="Remove documents that the source lacks, even if that is most of them."
)
@click.option(
    "--confirm-recipe",
    is_flag=True,
    help="Ingest documents of which only the recipe changed, even if that is most of them.",
)
@click.option(
    "--confirm-columns",
    is_flag=True,
    help="Give the corpus the columns of the settings, even if it loses columns or their values.",
)
@click.option(
    "--workers",
    type=WholeNumber(1),
    default=1,
    show_default=True,
    help="Processes on this machine that share the documents and the limits of the run.",
)
@as_json
def ingest(
    keys: Sequence[str],
    *,
    confirm_removals: bool,
    confirm_recipe: bool,
    confirm_columns: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Bring the corpus, or the named documents, up to date with the source, in one Dagster run."""
    from ingest_pipeline.cli import _runs  # noqa: PLC0415  `retry` needs no Dagster

    settings = _settings.settings()
    done = _runs.ingest(
        settings,
        keys,
        Console(stderr=as_json),
        confirm_removals=confirm_removals,
        confirm_recipe=confirm_recipe,
        confirm_columns=confirm_columns,
        workers=workers,
    )
    if done.note is not None:
        echo(renamed(done.note), err=True)
    if as_json:
        print_json(
            {
                "run_id": done.run_id,
                **dataclasses.asdict(done.progress),
                "costs": list(map(to_dict, done.costs)),
                "skipped": dict(done.skipped.reasons),
                "skipped_documents": list(map(to_dict, done.skipped.listed)),
                "problems": done.problems,
            }
        )
    elif done.progress.published or done.progress.embedded:
        progress = done.progress
        echo(
            f"{counted(progress.published - progress.removed, 'document')} published, {progress.removed:,} removed, "
            f"{counted(progress.chunks, 'chunk')}; {counted(progress.embedded, 'text')} embedded, "
            f"{progress.cached:,} cached, {counted(progress.tokens, 'token')}, "
            f"{cost_line(done.costs, is_free=settings.uses_local_model)}; run {done.run_id}"
        )
    elif not done.problems:
        echo(f"Nothing was published; run {done.run_id}")
    if done.skipped:
        echo(f"{done.skipped}. `status` shows why; `ingest KEY` tries one of them again.", err=True)
    exit_with(done.problems, misconfigured=done.misconfigured)


@command
@click.argument("keys", type=KEY, nargs=-1, metavar="[KEY]...")
def retry(keys: Sequence[str]) -> None:
    """Allow documents that failed too often or are on hold to be ingested again. Without KEY: all that failed.

    An erased document is ingested again only after its KEY is named here.

    Sensors that wait after failed runs request the next run at once.
    """
    with _session.corpus(_settings.settings()) as corpus:
        with corpus.database.transaction() as connection:
            failed = {failure.key for failure in failures.read_failures(connection, corpus.generation)}
            forgiven = sorted(failed & set(keys)) if keys else sorted(failed)
            failures.clear_failures(connection, corpus.generation, forgiven)
            allowed = erasures.allow(connection, corpus.name, keys)
        forgive_runs(corpus)
        released = release_holds(corpus, keys)
    tried = {*forgiven, *released, *allowed}
    if keys and not tried:
        raise UnknownDocumentError(
            f"No document {' or '.join(map(repr, keys))} of the corpus failed, is on hold or was erased, so nothing "
            "was changed",
            "`ingest-pipeline status` lists the documents that failed or are on hold.",
        )
    echo(
        f"{counted(len(tried), 'document')} will be tried again by the next ingest or sensor run"
        if tried
        else "No document failed or is on hold, so nothing was changed"
    )
