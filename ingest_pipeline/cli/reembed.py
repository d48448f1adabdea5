"""The command that moves a corpus to another embedding model: it says what that costs, and asks."""

from __future__ import annotations

import sys

import click
from rich.console import Console

from ingest_pipeline.cli import _runs, _session
from ingest_pipeline.cli._group import BAD_USAGE, FAILED, command
from ingest_pipeline.cli._output import cost_line, echo, plain, print_json, reembedding_line
from ingest_pipeline.config import Settings
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.reembed import Action, estimate_reembedding
from ingest_pipeline.orchestration.build import pipeline_settings


@command
@click.option("--fill-only", "action", flag_value=Action.FILL.name, help="Fill the new table, and move nobody.")
@click.option("--abort", "action", flag_value=Action.ABORT.name, help="Stop filling it. It is kept for a week.")
@click.option("--drop", "action", flag_value=Action.DROP.name, help="Delete tables that were left, at once.")
@click.option("--yes", is_flag=True, help="Do not ask before embeddings are bought.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of a sentence. Needs --yes.")
def reembed(action: str | None, *, yes: bool, as_json: bool) -> None:
    """Move the corpus to the embedding model that the settings name, or go on with it.

    A second table is filled beside the one that readers see; once it holds all documents, readers move to it at once.
    """
    if as_json and not yes:
        raise click.UsageError("--json needs --yes, since there is nobody to ask.")
    settings, wanted = Settings.from_environment(), Action[action or Action.SWITCH.name]
    documents = 0
    if wanted in (Action.SWITCH, Action.FILL):
        documents = _consent(settings, yes=yes, silent=as_json)
    done = _runs.reembed(settings, wanted, documents, Console(stderr=as_json))
    if as_json:
        costs = list(map(plain, done.costs))
        print_json({"run_id": done.run_id, **plain(done.progress), "costs": costs, "problems": done.problems})
    elif not done.problems:
        progress = done.progress
        echo(
            f"Done ({wanted.value}): {progress.published} documents published, {progress.embedded} embeddings bought, "
            f"{progress.tokens} tokens, {cost_line(done.costs)}; run {done.run_id}"
        )
    for problem in done.problems:
        echo(f"Error: {problem}", err=True)
    if done.problems:
        sys.exit(BAD_USAGE if done.misconfigured else FAILED)


def _consent(settings: Settings, *, yes: bool, silent: bool) -> int:
    """Say what it takes, and ask; returns how many documents are to be embedded."""
    with _session.context(settings) as context:
        foreseen = estimate_reembedding(context, pipeline_settings(settings))
        name, there = context.corpus.name, context.recipe.embedding
    if foreseen is None:
        raise ConfigurationError(
            f"Corpus {name!r} holds vectors of {there} already",
            "Set INGEST_EMBEDDING_MODEL to the model to move to, then run again.",
        )
    to = pipeline_settings(settings).recipe.embedding
    if not silent:
        echo(f"Moving corpus {name} from {there} to {to}: {reembedding_line(foreseen)}")
    if not yes:
        click.confirm("Go on?", abort=True)
    return foreseen.documents
