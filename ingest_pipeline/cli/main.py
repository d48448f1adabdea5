"""The command line.

Exit status: 0 done, 1 the work failed, 2 bad usage or settings, 3 an audit found violations, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from ingest_pipeline.cli import _runs, _session, batch, corpora, plan, recover, reembed, status, versions
from ingest_pipeline.cli._group import BAD_USAGE, FAILED, KEY, VIOLATIONS, as_json, command, main
from ingest_pipeline.cli._output import (
    cost_line,
    echo,
    plain,
    print_hits,
    print_json,
    print_rows,
    reembedding_line,
)
from ingest_pipeline.cli.demo.run import run_demo
from ingest_pipeline.config import Settings
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConfigurationError, MissingExtraError, UnknownDocumentError
from ingest_pipeline.ingestion.context import release_holds
from ingest_pipeline.maintenance.audit import AuditReport
from ingest_pipeline.maintenance.audit import audit as audit_corpus
from ingest_pipeline.maintenance.maintain import maintain as maintain_corpus
from ingest_pipeline.maintenance.repair import foresee_repair, repair
from ingest_pipeline.maintenance.sweep import SweepReport
from ingest_pipeline.maintenance.sweep import sweep as sweep_corpus
from ingest_pipeline.orchestration.build import build_resources
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.run_backoff import forgive_runs
from ingest_pipeline.postgres import failures
from ingest_pipeline.processes import with_parent_death_signal
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.saga.generations import drop_retired, other_generations
from ingest_pipeline.search.filters import DocumentFilter, parse_filter
from ingest_pipeline.search.search import SEARCH_MODES, Hit, SearchMode
from ingest_pipeline.search.search import search as search_corpus

_STOPPING_SECONDS = 30
_DEMO = Path(".ingest_pipeline/demo")


@command
@click.argument("keys", type=KEY, nargs=-1, metavar="[KEY]...")
@click.option("--confirm-removals", is_flag=True, help="Take out what the source lacks, even if that is most of it.")
@click.option(
    "--confirm-recipe", is_flag=True, help="Make documents again that differ by settings alone, even if that is most."
)
@as_json
def ingest(keys: Sequence[str], *, confirm_removals: bool, confirm_recipe: bool, as_json: bool) -> None:
    """Bring the corpus, or some documents, to what the source holds now, in one Dagster run."""
    settings = Settings.from_environment()
    if settings.uses_local_model and not as_json:
        echo("Embedding with the local model, at no cost.")
    done = _runs.ingest(
        settings,
        keys,
        Console(stderr=as_json),
        confirm_removals=confirm_removals,
        confirm_recipe=confirm_recipe,
    )
    if done.note is not None:
        echo(done.note, err=True)
    if as_json:
        costs = list(map(plain, done.costs))
        print_json(
            {
                "run_id": done.run_id,
                **dataclasses.asdict(done.progress),
                "costs": costs,
                "skipped": dict(done.skipped.reasons),
                "skipped_documents": list(map(plain, done.skipped.listed)),
                "problems": done.problems,
            }
        )
    elif done.progress.published or done.progress.embedded or not done.problems:
        progress = done.progress
        echo(
            f"{progress.published - progress.removed} documents published, {progress.removed} removed, "
            f"{progress.chunks} chunks; {progress.embedded} embeddings bought, {progress.cached} reused, "
            f"{progress.tokens} tokens, {cost_line(done.costs)}; run {done.run_id}"
        )
    if done.skipped:
        echo(f"{done.skipped}. `status` shows why; `ingest KEY` tries one again.", err=True)
    for problem in done.problems:
        echo(f"Error: {problem}", err=True)
    if done.problems:
        sys.exit(BAD_USAGE if done.misconfigured else FAILED)


@command
@click.argument("question")
@click.option(
    "--mode", type=click.Choice(SEARCH_MODES), default="hybrid", show_default=True, help="By meaning, words, both."
)
@click.option(
    "--where", "conditions", multiple=True, metavar="CONDITION", help="As key=docs/* or size>1000. May be repeated."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=5, show_default=True, help="How many chunks to show.")
@as_json
def search(question: str, mode: SearchMode, conditions: Sequence[str], limit: int, *, as_json: bool) -> None:
    """Find the chunks that answer a question best, at head."""
    settings = Settings.from_environment()
    if not question.strip():
        raise ConfigurationError("The question is empty", "Give some words to search for.")
    where = parse_filter(conditions)
    with _session.corpus(settings) as corpus:
        hits = asyncio.run(_search(settings, corpus, question, limit, mode=mode, where=where))
    if as_json:
        print_json([dataclasses.asdict(hit) for hit in hits])
        return
    print_hits(Console(), question, hits)


async def _search(
    settings: Settings, corpus: Corpus, question: str, limit: int, *, mode: SearchMode, where: DocumentFilter
) -> list[Hit]:
    if mode == "text":
        return await search_corpus(corpus, None, question, limit, mode=mode, where=where)
    async with _embedder_resource(settings).create_embedder(corpus.head().embedding) as embedder:
        return await search_corpus(corpus, embedder, question, limit, mode=mode, where=where)


async def _repair(settings: Settings, context: IngestContext, report: AuditReport, *, buy: bool) -> None:
    foreseen = await asyncio.to_thread(foresee_repair, context, report)
    echo(f"Repair: {reembedding_line(foreseen)}", err=True)
    if foreseen.to_embed and not (buy or settings.uses_local_model or _confirmed()):
        raise ConfigurationError(
            f"The repair would buy {foreseen.to_embed} embeddings, because their vectors are nowhere to be read",
            "Nothing was changed. Run `ingest-pipeline audit --repair --buy` to buy them.",
        )
    async with _embedder_resource(settings).create_embedder(context.recipe.embedding) as embedder:
        summary = await repair(context, embedder, report)
    for _, error in (*summary.failed.values(), *summary.too_recent.values()):
        echo(f"Error: {error}", err=True)


def _confirmed() -> bool:
    """Whether somebody at a terminal agrees; nobody is waited for elsewhere."""
    return sys.stdin.isatty() and sys.stdout.isatty() and click.confirm("Buy them?", err=True)


def _embedder_resource(settings: Settings) -> OpenAIEmbedderResource:
    return build_resources(settings).embedder


@command
@click.option(
    "--repair", "wants_repair", is_flag=True, help="Publish again the documents that are wrong, then look again."
)
@click.option("--buy", is_flag=True, help="With --repair: buy embeddings that are recorded nowhere, without asking.")
@as_json
def audit(*, wants_repair: bool, buy: bool, as_json: bool) -> None:
    """Check that LanceDB and Postgres agree at head; exit 3 if they do not.

    Before a repair it says what would be read and bought.
    """
    settings = Settings.from_environment()
    with _session.corpus(settings) as corpus:
        report = audit_corpus(corpus)
    if wants_repair and report.violations:
        with _session.context(settings) as context:
            asyncio.run(_repair(settings, context, report, buy=buy))
            report = audit_corpus(context.corpus)
    if as_json:
        print_json(dataclasses.asdict(report))
    else:
        rows = [
            {"invariant": v.invariant, "document": v.document or "", "what": v.what, "ids": ", ".join(v.ids)}
            for v in report.violations
        ]
        if rows:
            print_rows("violations", rows)
        echo(
            f"corpus {report.corpus} at head {report.head_version}: {report.documents} documents, {report.chunks} "
            f"chunks, {len(rows)} violations"
            + (f"; {report.files} files await a sweep" if report.files else "")
            + (f"; {report.unknown_files} files are of unknown sagas" if report.unknown_files else "")
        )
    if report.violations:
        sys.exit(VIOLATIONS)


@command
@click.argument("keys", type=KEY, nargs=-1, metavar="[KEY]...")
def retry(keys: Sequence[str]) -> None:
    """Let documents be ingested again that failed too often, or that a rollback holds; without KEY, all that failed.

    Sensors that wait because runs failed as a whole request the next one at once.
    """
    with _session.corpus(Settings.from_environment()) as corpus:
        with corpus.database.transaction() as connection:
            failed = {failure.key for failure in failures.read_failures(connection, corpus.generation)}
            forgiven = sorted(failed & set(keys)) if keys else sorted(failed)
            failures.clear_failures(connection, corpus.generation, forgiven)
        forgive_runs(corpus)
        released = release_holds(corpus, keys)
    tried = {*forgiven, *released}
    if keys and not tried:
        raise UnknownDocumentError(
            f"No document {' or '.join(map(repr, keys))} of the corpus failed or is held, so there is nothing to retry",
            "`ingest-pipeline status` lists those that did.",
        )
    echo(f"{len(tried)} documents will be tried again")


@command
@as_json
def maintain(*, as_json: bool) -> None:
    """Rewrite small fragments, bring indices up to date, let old versions go, and sweep. Safe at any time."""
    settings = Settings.from_environment()
    with _session.corpus(settings) as corpus:
        report = maintain_corpus(corpus, settings.retention, log=lambda text: echo(text, err=True))
    if as_json:
        print_json(plain(report))
        return
    rows = [
        {"": name, "before": before, "after": after}
        for (name, before), after in zip(plain(report.before).items(), plain(report.after).values(), strict=True)
    ]
    print_rows(f"corpus {report.corpus}, head {report.head_version}", rows)


@command
@click.option("--dry-run", is_flag=True, help="List what would be removed.")
@as_json
def sweep(*, dry_run: bool, as_json: bool) -> None:
    """Remove files, versions and rows that no publication and no running saga owns."""
    with _session.corpus(Settings.from_environment()) as corpus:
        report = sweep_corpus(corpus, dry_run=dry_run)
        for generation in other_generations(corpus):
            beside = sweep_corpus(generation, dry_run=dry_run)
            report = SweepReport(
                [*report.files, *beside.files],
                [*report.versions, *beside.versions],
                report.rows + beside.rows,
                [*report.unknown, *beside.unknown],
            )
        if not dry_run:
            drop_retired(corpus)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for name in report.files:
        echo(name)
    verb = "would be removed" if dry_run else "removed"
    echo(f"{len(report.files)} files, {len(report.versions)} versions and {report.rows} rows {verb}")
    if report.unknown:
        echo(f"{len(report.unknown)} files of sagas that this database does not know were left alone")


@command
@click.option("--port", default=3000, show_default=True, help="Port of the web server, on 127.0.0.1.")
@click.option("--demo", "of_demo", is_flag=True, help="Show the corpus that `ingest-pipeline demo` made.")
def ui(port: int, *, of_demo: bool) -> None:
    """Run Dagster's web server and daemon on the corpus, until interrupted."""
    settings = _session.demo_settings(_DEMO) if of_demo else Settings.from_environment()
    dagster = shutil.which("dagster", path=str(Path(sys.executable).parent))
    if dagster is None or shutil.which("dagster-webserver", path=str(Path(sys.executable).parent)) is None:
        raise MissingExtraError("Dagster's web server is not installed", "Run `pip install 'ingest-pipeline[ui]'`.")
    with _session.postgres(settings) as running:
        environment = os.environ | _session.dagster_environment(running) | {"INGEST_CORPUS": settings.corpus}
        echo(f"Dagster at http://127.0.0.1:{port} shows corpus {settings.corpus}; interrupt to stop.")
        arguments = [dagster, "dev", "-m", "ingest_pipeline.definitions", "-h", "127.0.0.1", "-p", str(port)]
        sys.exit(_run_until_told(arguments, environment))


def _run_until_told(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program that stops its own children when it is interrupted, and leave none behind."""
    told = threading.Event()

    # Set before the child starts: it would inherit the ignored interrupt of a background job, and never stop.
    def stop(_: int, __: object) -> None:
        told.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # In a session of its own, so that an interrupt from the terminal reaches it once, through us.
    command_line = with_parent_death_signal(arguments)
    with subprocess.Popen(command_line, env=environment, start_new_session=True) as process:  # noqa: S603  our words
        try:
            while process.poll() is None and not told.wait(0.2):
                pass
            process.send_signal(signal.SIGINT)
            return process.wait(_STOPPING_SECONDS)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@command
@click.option("--directory", type=click.Path(path_type=Path), default=_DEMO, show_default=True)
def demo(directory: Path) -> None:
    """Ingest Python's own documentation, break the pipeline in the middle, and show that nothing was lost."""
    sys.exit(run_demo(directory))


# Imported for what they add to the group.
_COMMANDS = (
    batch,
    plan,
    corpora,
    reembed,
    recover,
    status,
    versions,
)

if __name__ == "__main__":
    main()
