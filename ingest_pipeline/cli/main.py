"""The command line: the list of the commands, each imported only when it is used.

Exit status: 0 success, 1 the work failed, 2 wrong usage or settings, 3 an audit found violations, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module

import click
from click.shell_completion import CompletionItem

# Name of the command: its module in `cli.commands`, and the line that `--help` shows.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "audit": ("maintenance.audit", "Check that LanceDB and Postgres agree at head."),
    "batch": (
        "ingestion.batch",
        "Submit texts without a vector as batch jobs, which are cheaper and take up to a day.",
    ),
    "completion": ("setup.completion", "Print the script by which a shell completes commands and options."),
    "corpora": ("maintenance.corpora", "List the corpora of the database, with their tables, sources and models."),
    "demo": (
        "servers.ui",
        "Ingest Python's own documentation, kill a run during a publication, and show that nothing was lost.",
    ),
    "doctor": (
        "setup.doctor",
        "Check the settings and everything that they name: source, model, table, database, corpus, sensors.",
    ),
    "drop": ("maintenance.corpora", "Delete a corpus with its tables, its catalog, and its partitions in Dagster."),
    "erase": (
        "maintenance.erase",
        "Erase documents from both stores, all versions and Dagster, and search for what is left.",
    ),
    "eval": ("queries.eval", "Score a golden set of questions at head or any version, and compare two versions."),
    "gate": ("ingestion.gate", "Show what did not pass its gates, and release or drop it."),
    "history": ("maintenance.versions", "List the publications of the corpus, or of one document, newest first."),
    "ingest": (
        "ingestion.ingest",
        "Bring the corpus, or the named documents, up to date with the source, in one Dagster run.",
    ),
    "init": ("setup.init", "Write a commented configuration file into the current folder, and a list of variables."),
    "listen": (
        "ingestion.listen",
        "Ingest changes in S3 as soon as the event queue has a notice of them, until interrupted.",
    ),
    "maintain": ("maintenance.maintain", "Compact small fragments, update indices, remove old versions, and sweep."),
    "mcp": ("servers.mcp", "Serve the corpus to agents over the Model Context Protocol, read-only, until interrupted."),
    "metrics": (
        "servers.metrics",
        "Serve the figures of all corpora of the database to Prometheus at /metrics, until interrupted.",
    ),
    "plan": ("ingestion.plan", "Show which documents differ and what ingesting them would cost."),
    "recover": (
        "maintenance.recover",
        "Settle the sagas of dead writers, or resolve what another program or database wrote.",
    ),
    "reembed": ("ingestion.reembed", "Re-embed the corpus with the embedding model of the settings."),
    "relocate": (
        "maintenance.corpora",
        "Point the corpus to a table folder, a source or a model that was moved or renamed.",
    ),
    "retry": ("ingestion.ingest", "Allow documents that failed too often or are on hold to be ingested again."),
    "rollback": (
        "maintenance.versions",
        "Roll documents, or the whole corpus, back to an earlier publication, in one Dagster run.",
    ),
    "search": ("queries.search", "Find the chunks at head that match a question best."),
    "status": ("queries.status", "Show head, totals, unfinished sagas and failed documents."),
    "sweep": (
        "maintenance.maintain",
        "Remove files, versions and rows that belong to no publication and to no running saga.",
    ),
    "ui": ("servers.ui", "Run Dagster's web server and daemon for the corpus, until interrupted."),
}


class _LazyGroup(click.Group):
    """A group that imports the module of a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        found = getattr(import_module(f"ingest_pipeline.cli.commands.{module}"), cmd_name)
        assert isinstance(found, click.Command)  # noqa: S101  a test imports every one
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; an unknown one is refused with a suggestion."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], COMMANDS, n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?", ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin with what was typed. Click's own method would import them all for their help."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return found or super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ingest-pipeline")
def main() -> None:
    """Keep a searchable LanceDB table and a Postgres catalog in agreement with the files in object storage.

    Settings come from a project, from ingest-pipeline.toml, which `init` writes with an explanation of every option,
    or from variables such as INGEST_SOURCE. `doctor` checks them.
    """


if __name__ == "__main__":
    main()
