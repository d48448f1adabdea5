"""The command `reembed`, which shows the cost and asks before it embeds."""

from __future__ import annotations

import click
from rich.console import Console

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import command, exit_with
from ingest_pipeline.cli._output import cost_line, reembedding_line, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.ingestion.reembed import Action, estimate_reembedding
from ingest_pipeline.types import counted


@command
@click.option(
    "--fill-only", "action", flag_value=Action.FILL.name, help="Fill the new table, but do not switch readers to it."
)
@click.option(
    "--abort", "action", flag_value=Action.ABORT.name, help="Stop filling the new table, and keep it for a week."
)
@click.option("--drop", "action", flag_value=Action.DROP.name, help="Delete retired tables at once.")
@click.option("--yes", is_flag=True, help="Embed without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value. Requires --yes.")
def reembed(action: str | None, *, yes: bool, as_json: bool) -> None:
    """Re-embed the corpus with the embedding model of the settings.

    A second table is filled while readers use the first. When it has all documents, all readers switch to it at once.
    After an interruption, run the command again to continue.
    """
    if as_json and not yes:
        raise click.UsageError("--json requires --yes, because the command cannot ask.")
    settings, wanted = _settings.settings(), Action[action or Action.SWITCH.name]
    documents = 0
    if wanted in (Action.SWITCH, Action.FILL):
        documents = _confirm(settings, yes=yes, silent=as_json)
    from ingest_pipeline.cli import _runs  # noqa: PLC0415  only the run itself needs Dagster

    done = _runs.reembed(settings, wanted, documents, Console(stderr=as_json))
    if as_json:
        costs = list(map(to_dict, done.costs))
        print_json({"run_id": done.run_id, **to_dict(done.progress), "costs": costs, "problems": done.problems})
    elif not done.problems:
        progress = done.progress
        echo(
            f"Done ({wanted.value}): {counted(progress.published, 'document')} published, "
            f"{counted(progress.embedded, 'text')} embedded, {counted(progress.tokens, 'token')}, "
            f"{cost_line(done.costs, is_free=settings.uses_local_model)}; run {done.run_id}"
        )
    exit_with(done.problems, misconfigured=done.misconfigured)


def _confirm(settings: CorpusConfig, *, yes: bool, silent: bool) -> int:
    """Show what re-embedding costs, and ask. Returns the number of documents that will be embedded."""
    with _session.context(settings) as context:
        _settings.check_recipe(context)
        expected = estimate_reembedding(context, settings)
        name, there = context.corpus.name, context.recipe.embedding
    if expected is None:
        raise ConfigurationError(
            f"Corpus {name!r} already has vectors of {there}",
            "Set INGEST_EMBEDDING_MODEL to the new model, then run `ingest-pipeline reembed` again.",
        )
    to = settings.recipe.embedding
    if not silent:
        line = reembedding_line(expected, is_free=settings.uses_local_model)
        echo(f"Re-embedding corpus {name} from {there} to {to}: {line}")
    if not yes:
        click.confirm("Continue?", abort=True)
    return expected.documents
