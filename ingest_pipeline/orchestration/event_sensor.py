"""The sensor of the event queue: requests a run for the documents that notices of S3 name.

A run takes some ten seconds to start. `ingest-pipeline listen` is faster, and the sensor rests while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.events.queue import EventQueue
from ingest_pipeline.orchestration.due_documents import compare_source
from ingest_pipeline.orchestration.noticed_documents import compare_notices, requested_run
from ingest_pipeline.orchestration.queue_readers import is_listened, report_read
from ingest_pipeline.orchestration.run_requests import MAX_RUNS, partitions_in_progress
from ingest_pipeline.orchestration.ticks import Tick, corpus_sensor
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.reporting.partitions import corpus_partitions
from ingest_pipeline.resources.names import DagsterNames

# The daemon evaluates its sensors one after the other, so a tick must not wait long.
_WAIT_SECONDS = 1


def event_sensor(
    settings: CorpusConfig, events: str, upstream: Sequence[dg.AssetKey] = (), *, running: bool = True
) -> dg.SensorDefinition:
    """Requests runs for documents that notices name.

    Args:
        settings: Settings of the corpus.
        events: Address of the queue.
        upstream: The assets that make the files of the source.
        running: Whether the sensor is on by default.
    """
    names = DagsterNames.of(settings)
    definition = corpus_partitions(names, settings.scheme)

    @cache
    def queue() -> EventQueue:
        return EventQueue(events)

    @corpus_sensor(
        settings,
        "event_sensor",
        "Reads the event queue and requests a run for the documents that its notices name.",
        seconds=5,
        running=running,
    )
    def watch_queue(context: dg.SensorEvaluationContext) -> Tick:
        if is_listened(context.instance, names):
            return dg.SkipReason("`ingest-pipeline listen` reads the queue.")
        count, busy = partitions_in_progress(context.instance, names, definition)
        if busy is None:
            return dg.SkipReason("A run over all documents is in progress. The queue is read when it has ended.")
        if count >= MAX_RUNS:
            return dg.SkipReason(f"{count} runs are in progress. The queue is read when they have ended.")
        messages = queue().receive(_WAIT_SECONDS)
        report_read(context.instance, names, by_listener=False)
        if not messages:
            return dg.SkipReason("The queue has no notices.")

        def compare(ingest_context: IngestContext) -> Tick:
            found = compare_notices(ingest_context, messages)
            for warning in found.warnings:
                context.log.warning(warning)
            queue().delete(found.settled)
            due = [plan for plan in found.due if plan.partition not in busy]
            message = f"{len(found.due)} documents differ among those that {len(messages)} messages name."
            if not due:
                return dg.SkipReason(message)
            context.log.info(message)
            return dg.SensorResult(run_requests=[requested_run(names.step, due)])

        return compare_source(context, settings, upstream, compare)

    return watch_queue
