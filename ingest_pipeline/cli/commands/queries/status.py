"""The command `status`."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import to_dict
from ingest_pipeline.cli._status import Status, screen
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import IngestError
from ingest_pipeline.events.queue import EventQueue
from ingest_pipeline.ingestion.context import documents_on_hold
from ingest_pipeline.ingestion.gate_decisions import waiting
from ingest_pipeline.planning.run_backoff import read_backoff
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.corpora import Generation, GenerationState, reembedding_progress
from ingest_pipeline.postgres.catalog.corpora import read_generations as list_generations
from ingest_pipeline.postgres.catalog.recipes import read_recipes
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import batch_jobs, embedding_cache, sagas
from ingest_pipeline.postgres.ledger.failures import count_reasons, read_failures
from ingest_pipeline.postgres.url import place_of
from ingest_pipeline.preparation.spending_guard import read_spent
from ingest_pipeline.private_folder import local_path, others_may_read
from ingest_pipeline.sandbox.confinement import unavailable

TEXT_IS_OPEN = "Other accounts of this machine can read the documents' text in {}; chmod 700 prevents that."
_WATCH_SECONDS = 2


@command
@click.option("--watch", is_flag=True, help="Show the status again every two seconds, until interrupted.")
@as_json
def status(*, watch: bool, as_json: bool) -> None:
    """Show head, totals, unfinished sagas and failed documents."""
    console = Console()
    if watch and (as_json or not console.is_terminal):
        raise click.UsageError("--watch needs a terminal, and excludes --json.")
    settings = _settings.settings()
    if watch:
        _watch(settings, console)
        return
    with _session.corpus(settings) as corpus:
        found = _read(corpus, settings)
    if as_json:
        print_json(_as_value(found))
        return
    if (table := local_path(found.summary["table"])) is not None and others_may_read(table):
        echo(f"Warning: {TEXT_IS_OPEN.format(table)}", err=True)
    console.print(screen(found, console))


def _watch(settings: CorpusConfig, console: Console) -> None:
    """Show the status until the user interrupts, also before the first ingest and after an outage."""
    with (
        _session.postgres(settings) as running,
        suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False) as live,
    ):
        while True:
            live.update(_at_present(running, settings, console), refresh=True)
            time.sleep(_WATCH_SECONDS)


def _at_present(running: CorpusConfig, settings: CorpusConfig, console: Console) -> RenderableType:
    """The status, or why there is none at the moment.

    Args:
        running: The settings with the url of the running server.
        settings: The settings of the user.
        console: Where it is shown.
    """
    try:
        with _session.corpus(running) as corpus:
            now = _read(corpus, settings)
            footer = f"\nat {now.shown_at.astimezone():%H:%M:%S}, again every {_WATCH_SECONDS} s until Ctrl-C"
            return Group(screen(now, console), Text(footer, style="dim"))
    except IngestError as error:
        return Text(f"{error} This screen follows as soon as it can. Ctrl-C ends it.")


def _read(corpus: Corpus, settings: CorpusConfig) -> Status:
    head, latest = corpus.head(), corpus.table.latest_version()
    with corpus.database.transaction() as connection:
        totals = reports.totals(connection, corpus.generation)
        unfinished = sagas.unfinished(connection, corpus.generation)
        failed = read_failures(connection, corpus.generation)
        generations = list_generations(connection, corpus.name)
        spent = read_spent(connection, corpus.name)
        recipes = read_recipes(connection, corpus.generation)
        open_jobs = batch_jobs.open_batch_jobs(connection, corpus.generation)
        filling = next((found for found in generations if found.state == GenerationState.BUILDING), None)
        runs = {saga.run_id for saga in unfinished if saga.run_id}
        found: dict[str, Any] = {
            "costs": embedding_cache.costs(connection, generation=corpus.generation),
            "backoff": read_backoff(connection, corpus.generation),
            "reembedding": _reembedding(connection, corpus.generation, filling) if filling else None,
            "filling_costs": embedding_cache.costs(connection, generation=filling.name) if filling else [],
            "progress": {run: reports.run_progress(connection, run) for run in runs},
        }
    failures = [failure for failure in failed if not failure.unreadable]
    unreadable = [failure for failure in failed if failure.unreadable]
    holds = documents_on_hold(corpus)
    summary = {
        "corpus": corpus.name,
        "source": head.source,
        "table": head.table_uri,
        "partition_by": head.partition_by,
        "embedding": head.embedding,
        "database": place_of(settings.database_url) if settings.database_url else str(settings.postgres_directory),
        "head_version": head.head_version,
        "latest_version": latest,
        **totals,
        "recipe": recipes[-1].parts if recipes else None,
        "tokens_today": spent.today,
        "limits": dataclasses.asdict(settings.limits),
        "sagas_in_doubt": len(unfinished),
        "failed_documents": len(failures),
        "unreadable_documents": len(unreadable),
        "stale_documents": sum(failure.stale_since is not None for failure in failed),
        "documents_on_hold": len(holds),
        "blocked_publications": len(waiting(corpus)),
        "parser_confinement": f"without {' and '.join(lacking)}" if (lacking := unavailable()) else "complete",
        "event_queue": _queue_state(settings),
        "vectors_in_batch_jobs": sum(len(job.text_hashes) for job in open_jobs),
    }
    return Status(
        summary,
        generations=generations,
        unfinished=unfinished,
        failures=failures,
        unreadable=unreadable,
        holds=holds,
        is_free=settings.uses_local_model,
        **found,
    )


def _queue_state(settings: CorpusConfig) -> str | None:
    """How many messages the event queue has, or why that is not known. None: there is no queue."""
    if not settings.events:
        return None
    try:
        return str(EventQueue(settings.events).depth())
    except IngestError as error:
        return error.message


def _as_value(found: Status) -> dict[str, Any]:
    reembedding = found.reembedding
    lists = {
        "run_backoff": found.backoff and {**to_dict(found.backoff), "note": found.backoff.note},
        "costs": [to_dict(cost) for cost in found.costs],
        "reembedding": reembedding and {**reembedding, "costs": [to_dict(cost) for cost in found.filling_costs]},
        "generations": [to_dict(generation) for generation in found.generations],
        "in_doubt": [to_dict(saga) for saga in found.unfinished],
        "failures": [to_dict(failure) for failure in found.failures],
        "unreadable": dict(count_reasons(found.unreadable)),
        "unreadable_failures": [
            {**to_dict(failure), "stale_since": failure.stale_since} for failure in found.unreadable
        ],
        "holds": [to_dict(hold) for hold in found.holds],
    }
    return {**found.summary, **lists}


def _reembedding(connection: Connection, current: str, filling: Generation) -> dict[str, Any]:
    """Progress and usage of the generation that is being filled."""
    totals = reports.totals(connection, filling.name)
    return {
        "to": filling.embedding,
        "table": filling.name,
        "since": filling.state_since.isoformat(timespec="seconds"),
        **reembedding_progress(connection, current, filling.name),
        **{name: totals[name] for name in ("chunks", "embedded", "tokens", "requests")},
        "failed_documents": len(read_failures(connection, filling.name)),
    }
