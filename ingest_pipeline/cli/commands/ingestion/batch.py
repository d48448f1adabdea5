"""The command `batch`."""

from __future__ import annotations

import dataclasses

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import print_rows
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.ingestion.batch.batch_client import BatchClient
from ingest_pipeline.postgres.ledger import batch_jobs
from ingest_pipeline.types import counted

_MAX_ROWS = 20


@command
@click.option("--collect", is_flag=True, help="Submit nothing, only collect finished batch jobs.")
@click.option(
    "--confirm-recipe",
    is_flag=True,
    help="Include documents of which only the recipe changed, even if that is most of them.",
)
@as_json
def batch(*, collect: bool, confirm_recipe: bool, as_json: bool) -> None:
    """Submit texts without a vector as batch jobs, which are cheaper and take up to a day. Also collects finished jobs.

    A later ingest uses the collected vectors and embeds nothing. Until then the source sensor skips these documents.
    """
    settings = _settings.settings()
    client = BatchClient(settings.embedder_settings)
    if not collect:
        with _session.context(settings) as unchanged:
            _settings.check_recipe(unchanged, confirmed=confirm_recipe)
    with _session.context(settings, create=not collect) as context:
        ended = client.collect(context)
        submitted = 0 if collect else client.submit(context, confirm_recipe=confirm_recipe)
        with context.corpus.database.transaction() as connection:
            rows = batch_jobs.recent(connection, context.corpus.generation, _MAX_ROWS)
    rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    if as_json:
        print_json({"submitted": submitted, "ended": [dataclasses.asdict(one) for one in ended], "batch_jobs": rows})
        return
    echo(
        f"{counted(len(ended), 'batch job')} ended, "
        f"{counted(sum(one.collected for one in ended), 'vector')} collected; "
        f"{counted(submitted, 'batch job')} submitted"
    )
    print_rows("Batch jobs, newest first" if rows else "There are no batch jobs", rows)
