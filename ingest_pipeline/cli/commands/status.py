"""The command `status`."""

from __future__ import annotations

import dataclasses
from typing import Any

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import as_json, command
from ingest_pipeline.cli._output import cost_line, print_rows, to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.ingestion.context import documents_on_hold
from ingest_pipeline.planning.run_backoff import read_backoff
from ingest_pipeline.postgres import batch_jobs, embedding_cache, reports, sagas
from ingest_pipeline.postgres.corpora import Generation, GenerationState, reembedding_progress
from ingest_pipeline.postgres.corpora import read_generations as list_generations
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.failures import Failure, count_reasons, read_failures
from ingest_pipeline.postgres.holds import Hold
from ingest_pipeline.postgres.recipes import read_recipes
from ingest_pipeline.postgres.url import place_of
from ingest_pipeline.preparation.spending_guard import read_spent
from ingest_pipeline.private_folder import local_path, others_may_read
from ingest_pipeline.sandbox.confinement import unavailable

TEXT_IS_OPEN = "Other accounts of this machine can read the documents' text in {}; chmod 700 prevents that."


@command
@as_json
def status(*, as_json: bool) -> None:
    """Show head, totals, unfinished sagas and failed documents."""
    settings = _settings.settings()
    with _session.corpus(settings) as corpus:
        head, latest = corpus.head(), corpus.table.latest_version()
        with corpus.database.transaction() as connection:
            totals = reports.totals(connection, corpus.generation)
            costs = embedding_cache.costs(connection, generation=corpus.generation)
            unfinished = sagas.unfinished(connection, corpus.generation)
            failed = read_failures(connection, corpus.generation)
            generations = list_generations(connection, corpus.name)
            spent = read_spent(connection, corpus.name)
            recipes = read_recipes(connection, corpus.generation)
            backoff = read_backoff(connection, corpus.generation)
            open_jobs = batch_jobs.open_batch_jobs(connection, corpus.generation)
            filling = next((found for found in generations if found.state == GenerationState.BUILDING), None)
            reembedding = _reembedding(connection, corpus.generation, filling) if filling else None
            filling_costs = embedding_cache.costs(connection, generation=filling.name) if filling else []
        holds = documents_on_hold(corpus)
    failures = [failure for failure in failed if not failure.unreadable]
    unreadable = [failure for failure in failed if failure.unreadable]
    reasons = count_reasons(unreadable)
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
        "parser_confinement": f"without {' and '.join(lacking)}" if (lacking := unavailable()) else "complete",
        "vectors_in_batch_jobs": sum(len(job.text_hashes) for job in open_jobs),
    }
    if as_json:
        lists = {
            "run_backoff": backoff and {**to_dict(backoff), "note": backoff.note},
            "costs": [to_dict(cost) for cost in costs],
            "reembedding": reembedding and reembedding | {"costs": [to_dict(cost) for cost in filling_costs]},
            "generations": [to_dict(generation) for generation in generations],
            "in_doubt": [to_dict(saga) for saga in unfinished],
            "failures": [to_dict(failure) for failure in failures],
            "unreadable": dict(reasons),
            "unreadable_failures": [{**to_dict(failure), "stale_since": failure.stale_since} for failure in unreadable],
            "holds": [to_dict(hold) for hold in holds],
        }
        print_json({**summary, **lists})
        return
    if (table := local_path(head.table_uri)) is not None and others_may_read(table):
        echo(f"Warning: {TEXT_IS_OPEN.format(table)}", err=True)
    shown = [*((name, _in_words(value)) for name, value in summary.items()), ("cost", cost_line(costs))]
    print_rows(f"corpus {corpus.name}", [{"": name, "value": value} for name, value in shown])
    if backoff is not None:
        print_rows("runs that failed as a whole", [{"runs": backoff.note}])
    if len(generations) > 1:
        print_rows("generations; readers see the current one", list(map(to_dict, generations)))
    if reembedding is not None:
        print_rows(
            "the generation that is being filled; readers do not see it",
            [{**reembedding, "cost": cost_line(filling_costs)}],
        )
    if failures:
        rows = [
            {
                "document": failure.key,
                "attempts": failure.attempts,
                "next": "after a change" if failure.is_final else "soon",
                "readers_see": _seen(failure),
                "error": failure.error,
            }
            for failure in failures
        ]
        print_rows("documents that failed", rows)
    if unreadable:
        counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        rows = [
            {
                "document": failure.key,
                "reason": failure.reason,
                "readers_see": _seen(failure),
                "next": f"after a change, or `retry {failure.key}`" if failure.is_final else "soon",
                "error": failure.error,
            }
            for failure in unreadable
        ]
        print_rows(f"{len(unreadable)} documents cannot be read: {counted}", rows)
    if holds:
        print_rows("documents on hold after a rollback", [_hold_row(hold) for hold in holds])


def _in_words(value: object) -> object:
    """A mapping as one line."""
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else value


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


def _seen(failure: Failure) -> str:
    """What readers see of a document that could not be published."""
    if failure.stale_since is None:
        return "nothing"
    return f"version {failure.published_version}, stale since {failure.stale_since.isoformat(timespec='seconds')}"


def _hold_row(hold: Hold) -> dict[str, Any]:
    return {
        "document": hold.key,
        "rolled_back_to": hold.version,
        "since": hold.held_at.isoformat(timespec="seconds"),
        "etag_on_hold": hold.etag or "(no object)",
        "next": f"after a change, or `retry {hold.key}`",
    }
