"""The status of a corpus: what it has, what it costs, and what needs attention, on one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType

from ingest_pipeline.cli._group import renamed
from ingest_pipeline.cli._output import cost_line, facts_table, local_time, rows_table, short_id
from ingest_pipeline.corpus.saga_timeouts import SILENCE_SECONDS
from ingest_pipeline.planning.run_backoff import RunBackoff
from ingest_pipeline.postgres.catalog.corpora import Generation, GenerationState
from ingest_pipeline.postgres.catalog.holds import Hold
from ingest_pipeline.postgres.catalog.reports import RunProgress
from ingest_pipeline.postgres.ledger.embedding_cache import Cost
from ingest_pipeline.postgres.ledger.failures import Failure, count_reasons
from ingest_pipeline.postgres.ledger.sagas import SagaRow
from ingest_pipeline.processes import is_dead
from ingest_pipeline.types import counted

_MAX_ROWS = 100
# On a terminal, so that all lists together fit a screen.
_MAX_ROWS_OF_SCREEN = 5
_MAX_FOLDED = 3


@dataclass(frozen=True, slots=True)
class Status:
    """What the command `status` reports."""

    summary: Mapping[str, Any]
    costs: Sequence[Cost]
    backoff: RunBackoff | None
    generations: Sequence[Generation]
    reembedding: Mapping[str, Any] | None
    filling_costs: Sequence[Cost]
    unfinished: Sequence[SagaRow]
    progress: Mapping[str, RunProgress]
    """Progress of the Dagster runs that have unfinished sagas."""
    failures: Sequence[Failure]
    unreadable: Sequence[Failure]
    holds: Sequence[Hold]
    is_free: bool = False
    """Whether the local model embeds the texts."""
    shown_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def screen(found: Status, console: Console) -> RenderableType:
    """The status as one screen of a terminal, or as all of it for a file."""
    lists = [*_running(found), *_attention(found)]
    rows = sum(len(rows) for _, rows in lists)
    limit = _MAX_ROWS_OF_SCREEN if console.is_terminal else _MAX_ROWS
    in_one_line = console.is_terminal and rows > _MAX_FOLDED
    parts: list[RenderableType] = [facts_table(_title(found), _facts(found))]
    for title, of_list in lists:
        parts += ["", rows_table(title, of_list[:limit], in_one_line=in_one_line)]
        if len(of_list) > limit:
            parts.append(f"and {len(of_list) - limit:,} more; --json lists all")
    return Group(*parts)


def _title(found: Status) -> str:
    summary = found.summary
    latest = f", latest is {summary['latest_version']}" if summary["latest_version"] != summary["head_version"] else ""
    return f"Corpus {summary['corpus']}, version {summary['head_version']}{latest}"


def _facts(found: Status) -> list[tuple[str, str]]:
    one = found.summary
    cost = cost_line(found.costs, is_free=found.is_free)
    used = f"{counted(one['embedded'], 'text')} embedded, {counted(one['tokens'], 'token')}, {cost}"
    facts = [
        ("documents", f"{counted(one['documents'], 'document')}, {counted(one['chunks'], 'chunk')}"),
        ("source", str(one["source"] or "none: a table of your own")),
        ("table", str(one["table"])),
        ("database", str(one["database"])),
        ("model", str(one["embedding"] or "none")),
        ("chunks", _chunks(one["recipe"] or {})),
        ("used", used),
        ("today", _today(one)),
        ("waiting", f"{counted(one['vectors_in_batch_jobs'], 'vector')} in batch jobs"),
        ("events", str(one["event_queue"])),
        ("parser", f"runs {one['parser_confinement']}"),
        ("state", _state(found)),
    ]
    hidden = {"chunks": not one["recipe"], "waiting": not one["vectors_in_batch_jobs"]}
    hidden["events"] = one["event_queue"] is None
    hidden["parser"] = one["parser_confinement"] == "complete"
    return [(name, value) for name, value in facts if not hidden.get(name, False)]


def _chunks(recipe: Mapping[str, Any]) -> str:
    """The sizes of the recipe. `--json` has all of it."""
    size = f"{recipe.get('chunk_size')} {recipe.get('chunk_unit', 'characters')} at most"
    overlap = f", {recipe['chunk_overlap']} repeated" if recipe.get("chunk_overlap") else ""
    return size + overlap + (", headings embedded" if recipe.get("heading_context") else "")


def _today(summary: Mapping[str, Any]) -> str:
    limit = summary["limits"]["tokens_per_day"]
    used = counted(summary["tokens_today"], "token")
    return used if limit is None else f"{used} of {limit:,} allowed"


def _state(found: Status) -> str:
    parts = [
        (doubt := sum(_in_doubt(found, saga) for saga in found.unfinished), f"{counted(doubt, 'saga')} in doubt"),
        (running := len(found.unfinished) - doubt, f"{counted(running, 'saga')} running"),
        (len(found.failures), counted(len(found.failures), "document") + " failed"),
        (len(found.unreadable), f"{len(found.unreadable)} unreadable"),
        (len(found.holds), f"{len(found.holds)} on hold"),
    ]
    return ", ".join(text for count, text in parts if count) or "nothing needs attention"


def _silence(found: Status, saga: SagaRow) -> float:
    """Seconds since the heartbeat of a saga."""
    return max(0.0, (found.shown_at - saga.seen_at).total_seconds())


def _in_doubt(found: Status, saga: SagaRow) -> bool:
    """Whether recovery would take the writer of a saga for dead."""
    return is_dead(saga.writer) or _silence(found, saga) >= SILENCE_SECONDS


def _running(found: Status) -> list[tuple[str, list[dict[str, Any]]]]:
    titles = {False: "Running", True: "In doubt: `ingest-pipeline recover` settles them"}
    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for saga in found.unfinished:
        row = {
            "saga": short_id(saga.id),
            "what": f"{saga.kind}, {saga.state}",
            "since": local_time(saga.started_at),
            "heartbeat": f"{int(_silence(found, saga))} s ago",
            "progress": _progress(found.progress.get(saga.run_id or "")),
        }
        rows[_in_doubt(found, saga)].append(row)
    return [(titles[in_doubt], of_list) for in_doubt, of_list in rows.items() if of_list]


def _progress(progress: RunProgress | None) -> str:
    if progress is None:
        return ""
    done = max(progress.prepared, progress.published)
    return f"{done:,} of {counted(progress.documents, 'document')}, {counted(progress.embedded, 'text')} embedded"


def _attention(found: Status) -> list[tuple[str, list[dict[str, Any]]]]:
    """The lists of what the user may have to act on, with what to do."""
    lists: list[tuple[str, list[dict[str, Any]]]] = []
    if found.backoff is not None:
        lists.append(("Runs that failed as a whole", [{"runs": found.backoff.note}]))
    if len(found.generations) > 1:
        lists.append(("Generations; readers see the current one", [_generation(one) for one in found.generations]))
    if found.reembedding is not None:
        one = {**found.reembedding, "cost": cost_line(found.filling_costs, is_free=found.is_free)}
        lists.append(("Re-embedding; readers do not see it yet", [{"what": name, "is": one[name]} for name in one]))
    if found.failures:
        quarantined = sum(failure.is_final for failure in found.failures)
        hint = f"; {quarantined} in quarantine until `retry` or a change" if quarantined else ""
        title = f"{counted(len(found.failures), 'document')} failed{hint}"
        lists.append((title, [_failure(failure) for failure in found.failures]))
    if found.unreadable:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(count_reasons(found.unreadable).items()))
        title = f"{counted(len(found.unreadable), 'document')} cannot be read: {reasons}"
        lists.append((title, [_failure(failure) for failure in found.unreadable]))
    if found.holds:
        title = "On hold after a rollback, until the file changes or `ingest-pipeline retry`"
        lists.append((title, [_hold(hold) for hold in found.holds]))
    return lists


def _failure(failure: Failure) -> dict[str, Any]:
    again = f"Next try: after a change, or `retry {failure.key}`." if failure.is_final else "It is tried again soon."
    seen = ""
    if failure.stale_since is not None:
        seen = f" Readers see version {failure.published_version}, stale since {local_time(failure.stale_since)}."
    return {"document": failure.key, "what happened": f"{renamed(failure.error)}{seen} {again}"}


def _hold(hold: Hold) -> dict[str, Any]:
    return {"document": hold.key, "rolled back to": hold.version, "since": local_time(hold.held_at)}


def _generation(generation: Generation) -> dict[str, Any]:
    is_current = generation.state == GenerationState.CURRENT
    return {
        "generation": generation.name,
        "state": f"{generation.state}" if is_current else f"{generation.state} {local_time(generation.state_since)}",
        "documents": generation.documents,
        "head": generation.head_version,
        "model": generation.embedding or "",
    }
