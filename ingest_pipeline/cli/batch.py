"""The command about bulk orders."""

from __future__ import annotations

import dataclasses

import click

from ingest_pipeline.cli import _session
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import echo, print_json, print_rows
from ingest_pipeline.config import Settings
from ingest_pipeline.orchestration.build import build_resources
from ingest_pipeline.orchestration.jobs.batch import batch_endpoint, collect_vectors, order_vectors
from ingest_pipeline.postgres import batch_jobs

_SHOWN = 20


@command
@click.option("--collect", is_flag=True, help="Order nothing; collect what has come.")
@click.option(
    "--confirm-recipe", is_flag=True, help="Also of documents that differ by settings alone, even if that is most."
)
@as_json
def batch(*, collect: bool, confirm_recipe: bool, as_json: bool) -> None:
    """Order missing vectors in bulk, cheaper and within a day, and collect what has come.

    An ingest afterwards finds them and buys nothing. Until then the source sensor leaves their documents alone.
    """
    settings = Settings.from_environment()
    embedder = build_resources(settings).embedder
    endpoint = batch_endpoint(embedder)
    with _session.context(settings, create=not collect) as context:
        ended = collect_vectors(context, endpoint)
        given = 0 if collect else order_vectors(context, endpoint, confirm_recipe=confirm_recipe)
        with context.corpus.database.transaction() as connection:
            rows = batch_jobs.recent(connection, context.corpus.generation, _SHOWN)
    rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    if as_json:
        print_json({"given": given, "ended": [dataclasses.asdict(one) for one in ended], "orders": rows})
        return
    echo(f"{len(ended)} orders ended, {sum(one.collected for one in ended)} vectors came; {given} orders given")
    print_rows("bulk orders, newest first", rows)
