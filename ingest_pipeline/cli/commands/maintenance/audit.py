"""The command `audit`, which can repair what it finds."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import VIOLATIONS, as_json, command
from ingest_pipeline.cli._output import print_rows, reembedding_line
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.maintenance.audit import AuditReport
from ingest_pipeline.maintenance.audit import audit as audit_corpus
from ingest_pipeline.maintenance.repair import estimate_repair, repair
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.types import counted


@command
@click.option(
    "--repair", "wants_repair", is_flag=True, help="Publish the documents with violations again, then repeat the audit."
)
@click.option("--yes", is_flag=True, help="With --repair: embed texts whose vectors are lost, without asking.")
@as_json
def audit(*, wants_repair: bool, yes: bool, as_json: bool) -> None:
    """Check that LanceDB and Postgres agree at head. The exit status is 3 if they do not.

    Before a repair, the command reports how many documents would be read and how many texts embedded.
    """
    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        report = audit_corpus(corpus)
    if wants_repair and report.violations:
        with _session.context(settings) as context:
            _settings.check_recipe(context)
            asyncio.run(_repair(settings, context, report, yes=yes))
            report = audit_corpus(context.corpus)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        _print(report)
    if report.violations:
        sys.exit(VIOLATIONS)


def _print(report: AuditReport) -> None:
    rows = [
        {"invariant": v.invariant, "document": v.document or "", "what": v.what, "ids": ", ".join(v.ids)}
        for v in report.violations
    ]
    if rows:
        print_rows("Violations", rows)
    echo(
        f"Corpus {report.corpus} at head {report.head_version}: {counted(report.documents, 'document')}, "
        f"{counted(report.chunks, 'chunk')}, {counted(len(rows), 'violation')}"
        + (f"; the next sweep removes {counted(report.files, 'file')}" if report.files else "")
        + (f"; unknown sagas have {counted(report.unknown_files, 'file')}" if report.unknown_files else "")
    )


async def _repair(settings: CorpusConfig, context: IngestContext, report: AuditReport, *, yes: bool) -> None:
    expected = await asyncio.to_thread(estimate_repair, context, report)
    echo(f"Repair: {reembedding_line(expected, is_free=settings.uses_local_model)}", err=True)
    if expected.to_embed and not (yes or settings.uses_local_model or _confirmed()):
        raise ConfigurationError(
            f"The repair would embed {counted(expected.to_embed, 'text')} whose vectors are recorded nowhere. "
            "Nothing was changed",
            "Run `ingest-pipeline audit --repair --yes` to embed them.",
        )
    async with _session.embedder(settings, context.recipe.embedding) as embedder:
        summary = await repair(context, embedder, report)
    for _, error in (*summary.failed.values(), *summary.too_recent.values()):
        echo(f"Error: {error}", err=True)


def _confirmed() -> bool:
    """Ask the user at a terminal. Without a terminal, the answer is no."""
    return sys.stdin.isatty() and sys.stdout.isatty() and click.confirm("Embed them?", err=True)
