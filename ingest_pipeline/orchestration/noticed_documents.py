"""Compares the documents that notices name with head: which are due, and which notices are no longer needed.

A notice is deleted as soon as such a comparison finds nothing to do for it: its document was published or removed, was
refused, or changed again since and has a notice of its own for that. Until then it stays in the queue, hidden for a
minute at a time. So whatever dies, the next comparison of the same notice continues, and it needs no memory. To delete
notices on receipt would be as safe, because the listing finds everything, but a change would then wait for the listing
whenever a run dies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ingest_pipeline.events.notices import keys_in, read_notices
from ingest_pipeline.events.queue import EventQueue, Message
from ingest_pipeline.orchestration.due_documents import DueDocuments
from ingest_pipeline.orchestration.run_requests import shared_run
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import check_removals
from ingest_pipeline.planning.source_comparison import Planner

_MAX_SHOWN = 100


@dataclass(slots=True)
class NoticedDocuments:
    """The result of one comparison."""

    due: list[DocumentPlan] = field(default_factory=list[DocumentPlan])
    """Documents to ingest or to remove now, by key."""
    settled: list[Message] = field(default_factory=list[Message])
    """Messages to delete: nothing is to be done for the documents that they name."""
    warnings: list[str] = field(default_factory=list[str])


def compare_notices(context: IngestContext, messages: Sequence[Message]) -> NoticedDocuments:
    """Compare the documents that messages name. Documents in backoff, in quarantine or on hold are not due.

    Args:
        context: The open corpus with its source.
        messages: The messages.

    Raises:
        SourceUnavailableError: The source does not answer.
    """
    found = NoticedDocuments()
    keys = [_keys(context, message, found.warnings) for message in messages]
    named = sorted({key for of_message in keys for key in of_message})
    if named:
        found.due = _due(context, named, found.warnings)
    due = {plan.key for plan in found.due}
    found.settled = [message for message, named in zip(messages, keys, strict=True) if due.isdisjoint(named)]
    return found


def work_off(
    messages: Sequence[Message],
    queue: EventQueue,
    open_context: Callable[[], IngestContext],
    ingest: Callable[[Sequence[DocumentPlan]], None],
) -> NoticedDocuments:
    """Ingest what messages name, and delete those for which nothing is left to do.

    Args:
        messages: The messages, which were received.
        queue: Their queue.
        open_context: Opens the corpus. It is called for each comparison, because a re-embedding may replace it.
        ingest: Ingests or removes documents. Those that it cannot ingest are recorded, and differ afterwards.

    Returns:
        The result of the last comparison, with all warnings. The messages that were not settled are hidden still.
    """
    found = compare_notices(open_context(), messages)
    queue.delete(found.settled)
    if not found.due:
        return found
    ingest(found.due)
    settled, warnings = found.settled, found.warnings
    done = {message.receipt for message in settled}
    found = compare_notices(open_context(), [message for message in messages if message.receipt not in done])
    queue.delete(found.settled)
    return NoticedDocuments(found.due, [*settled, *found.settled], list(dict.fromkeys([*warnings, *found.warnings])))


def requested_run(step: str, due: Sequence[DocumentPlan]) -> dg.RunRequest:
    """A request for one run over exactly these documents.

    Args:
        step: Name of the step that ingests.
        due: The documents, of one or more partitions.
    """
    return shared_run(
        step,
        sorted({plan.partition for plan in due}),
        documents=[plan.key for plan in due],
        skip_backed_off=True,
        release_holds=False,
        withhold_removals=all(plan.source is not None for plan in due),
        withhold_recipe=True,
    )


def _keys(context: IngestContext, message: Message, warnings: list[str]) -> list[str]:
    try:
        notices = read_notices(message.body)
    except ValueError as error:
        warnings.append(f"A message of the queue is no notice of S3, because {error}: {message.body[:_MAX_SHOWN]!r}")
        return []
    return keys_in(context.source.url, notices, with_sidecars=bool(context.columns))


def _due(context: IngestContext, keys: Sequence[str], warnings: list[str]) -> list[DocumentPlan]:
    page = Planner(context).documents(keys)
    puts = DueDocuments(context).of(page.puts)
    # The pass over the whole source decides about removals that are most of the corpus.
    refusal = check_removals(context, len(page.removals), with_recent=True)
    if refusal is not None:
        warnings.append(str(refusal))
    return sorted([*puts, *(page.removals if refusal is None else [])], key=lambda plan: plan.key)
