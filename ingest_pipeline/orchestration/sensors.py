"""Sensors: one watches the source for files that differ from the corpus, one the ledger for writers that died.

Each tick compares the actual state with the wanted one. So nothing is forgotten when a tick, a run, a cursor or the
daemon is lost, and a file that is changed back to earlier bytes is detected like any other.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.erasure.unfinished import continue_erasures
from ingest_pipeline.orchestration.cursor_position import SourceCursor
from ingest_pipeline.orchestration.due_documents import DueDocuments, compare_source
from ingest_pipeline.orchestration.queue_readers import is_read
from ingest_pipeline.orchestration.run_requests import (
    MAX_RUNS,
    partitions_in_progress,
    run_requests,
    runs_at_once,
    runs_over_everything,
    shared_run,
)
from ingest_pipeline.orchestration.ticks import Tick, corpus_sensor, with_corpus
from ingest_pipeline.planning.backoff import clear_resolved, has_due_retries, without_unreadable
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.lag import record_comparison
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.removal_guard import withheld
from ingest_pipeline.planning.source_comparison import Limits, Page, Planner
from ingest_pipeline.postgres.ledger.failures import read_failures
from ingest_pipeline.reporting.erasure import DagsterRecords
from ingest_pipeline.reporting.head import report_silent_change
from ingest_pipeline.reporting.partitions import corpus_partitions, drop_stray_partitions, recall_partitions
from ingest_pipeline.reporting.replay import replay_reports
from ingest_pipeline.reporting.run_status import (
    ended_runs,
    fail_dead_runs,
    fail_silent_runs,
    fail_unclaimed_runs,
    runs_in_doubt,
)
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.saga.generations import other_generations
from ingest_pipeline.saga.recover import recover
from ingest_pipeline.types import counted

# Dagster ends a tick after 60 seconds, run requests included.
_MAX_PAGE_SECONDS = 20.0
_MAX_PAGE_DOCUMENTS = 8000
# From so many documents on, runs over everything are cheaper than runs over named documents, of which each has 2,000.
_LARGE_DIFFERENCE = 8000
_SENSOR_RUN = {"skip_backed_off": True, "release_holds": False, "withhold_recipe": True}
_REST_SECONDS = 3300.0
"""While the event queue is read, a pass begins so long after one that found no document due. After an hour without a
comparison, alerts fire."""


def source_sensor(
    settings: CorpusConfig,
    pool: str,
    upstream: Sequence[dg.AssetKey] = (),
    *,
    max_runs: int = MAX_RUNS,
    running: bool = True,
) -> dg.SensorDefinition:
    """Requests runs for files that are new, changed or deleted.

    Args:
        settings: Settings of the corpus.
        pool: The pool of the runs that ingest the corpus.
        upstream: The assets that make the files of the source.
        max_runs: Runs among which a large difference is shared, at most. The pool's limit counts too.
        running: Whether the sensor is on by default.
    """
    names = DagsterNames.of(settings)
    definition = corpus_partitions(names, settings.scheme)

    @corpus_sensor(
        settings,
        "source_sensor",
        "Compares the source with the catalog and requests runs for the documents that differ.",
        seconds=30,
        running=running,
    )
    def watch_source(context: dg.SensorEvaluationContext) -> Tick:
        count, busy = partitions_in_progress(context.instance, names, definition)
        if busy is None:
            return dg.SkipReason(
                "A run over all documents is in progress. The source is compared again when it has ended."
            )
        if count >= MAX_RUNS:
            return dg.SkipReason(
                f"{counted(count, 'run is', 'runs are')} in progress. More are requested when they have ended."
            )
        _limit(context.instance, pool)
        at_once = runs_at_once(context.instance, pool, max_runs)

        def tick(opened: IngestContext) -> Tick:
            return _tick(context, opened, settings, busy, at_once)

        return compare_source(context, settings, upstream, tick)

    return watch_source


def _limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Set the limit of the pool. Dagster itself does so only after its queue has started the first runs of the pool."""
    events = instance.event_log_storage
    if events.supports_global_concurrency_limits and pool not in events.get_concurrency_keys():
        events.initialize_concurrency_limit_to_default(pool)


def _tick(
    context: dg.SensorEvaluationContext,
    ingest_context: IngestContext,
    settings: CorpusConfig,
    busy: set[str],
    at_once: int,
) -> Tick:
    """Compare one page of keys, and request runs for its documents."""
    now = SourceCursor.parse(context.cursor)
    if settings.events and (resting := _resting(context.instance, ingest_context, settings, now)):
        return resting
    limits = Limits(_MAX_PAGE_DOCUMENTS, _MAX_PAGE_SECONDS, settings.min_age_seconds)
    page = Planner(ingest_context).page(now.after, limits)
    clear_resolved(ingest_context, page)
    removals = now.advance(page)
    now.count_lag(without_unreadable(ingest_context, page.plans))
    if now.ended:
        record_comparison(ingest_context.corpus, *now.lag)
    documents = DueDocuments(ingest_context)
    puts = documents.of(page.puts)
    due = sorted(
        (plan for plan in (*puts, *removals) if plan.partition not in busy), key=lambda plan: (plan.partition, plan.key)
    )
    now.due += len(puts) + len(page.removals) + len(page.too_recent)
    context.update_cursor((now.next if now.ended else now).dump())
    _drop_strays(context.instance, ingest_context, settings, page, busy)
    message = _message(page, now, ingest_context, skipped=documents.skipped)
    if documents.withheld is not None:
        message += f" {documents.withheld}"
    if not due:
        return dg.SkipReason(message)
    context.log.info(message)
    is_large = page.last is not None and len(due) >= _LARGE_DIFFERENCE
    if is_large and at_once > 1 and not busy and not documents.waits_for_batch_job:
        # Removals need a pass over all keys, which the next ticks make.
        step = DagsterNames.of(settings).step
        return dg.SensorResult(run_requests=runs_over_everything(step, at_once, withhold_removals=True, **_SENSOR_RUN))
    return _requests(settings, due, at_once, whole=len(removals) == len(page.removals))


def _resting(
    instance: dg.DagsterInstance, ingest_context: IngestContext, settings: CorpusConfig, now: SourceCursor
) -> dg.SkipReason | None:
    """Why no pass begins yet: nothing was due at the end of the last one, and changes since are in the event queue."""
    until = now.rests_until(_REST_SECONDS)
    if until is None or not is_read(instance, DagsterNames.of(settings)) or has_due_retries(ingest_context):
        return None
    at = f"{datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
    return dg.SkipReason(f"The event queue is read, and no document differed. The source is listed again at {at}.")


def _drop_strays(
    instance: dg.DagsterInstance, ingest_context: IngestContext, settings: CorpusConfig, page: Page, busy: set[str]
) -> None:
    """Delete partitions whose file is gone or cannot be read, and that never had a published document."""
    if page.after or page.last is not None:
        return  # only a comparison of all keys shows that a partition has no file
    partition_of = ingest_context.scheme.partition_of
    with ingest_context.corpus.database.transaction() as connection:
        failures = read_failures(connection, ingest_context.corpus.generation)
    skipped = {one.key for one in failures if one.unreadable and settings.on_unreadable == "skip"}
    differing = {
        partition_of(plan.key) for plan in (*page.plans, *page.on_hold, *page.blocked) if plan.key not in skipped
    }
    wanted = differing.union(busy, map(partition_of, page.too_recent))
    drop_stray_partitions(instance, DagsterNames.of(settings), ingest_context.corpus, ingest_context.scheme, wanted)


def _requests(settings: CorpusConfig, due: list[DocumentPlan], at_once: int, *, whole: bool) -> dg.SensorResult:
    names = DagsterNames.of(settings)
    definition = corpus_partitions(names, settings.scheme)
    runs = run_requests(names.step, due, at_once, withhold_removals=not whole, **_SENSOR_RUN)[:MAX_RUNS]
    added: list[dg.AddDynamicPartitionsRequest] = []
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        added = [definition.build_add_request(sorted({plan.partition for plan in due if plan.source is not None}))]
    return dg.SensorResult(run_requests=runs, dynamic_partitions_requests=added)


def _message(page: Page, now: SourceCursor, ingest_context: IngestContext, *, skipped: int) -> str:
    """The result of the tick, in one line."""
    parts = [
        f"{counted(len(page.puts) + len(page.removals), 'document differs', 'documents differ')} among {page.listed}"
    ]
    if page.last is not None:
        parts.append(f"up to {page.last!r}, where the next tick continues")
    if page.too_recent:
        parts.append(f"{counted(len(page.too_recent), 'was', 'were')} modified too recently")
    if skipped:
        which = counted(skipped, "of them is", "of them are")
        parts.append(f"{which} skipped: unreadable, failed, or waiting for a batch job")
    if page.blocked:
        parts.append(f"{counted(len(page.blocked), 'is', 'are')} blocked by gates")
    if page.on_hold:
        parts.append(f"{counted(len(page.on_hold), 'is', 'are')} on hold after a rollback")
    parts += [f"{counted(count, 'is', 'are')} excluded ({reason})" for reason, count in page.excluded.items()]
    line = ", ".join(parts) + "."
    if now.ended and now.is_suspicious:
        line += f" {withheld(ingest_context.corpus.name, ingest_context.source.url, now.gone, now.latest)}"
    return line


def recovery_sensor(
    settings: CorpusConfig, upstream: Sequence[dg.AssetKey] = (), *, running: bool = True
) -> dg.SensorDefinition:
    """Settles the sagas of writers that died, and reports their publications.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
        running: Whether the sensor is on by default.
    """
    names = DagsterNames.of(settings)

    @corpus_sensor(
        settings,
        "recovery_sensor",
        "Settles the sagas of writers that died, and reports their publications to Dagster.",
        seconds=30,
        needs=(VersionedLanceDBResource,),
        running=running,
    )
    def watch_ledger(context: dg.SensorEvaluationContext) -> Tick:
        def tick(ingest_context: IngestContext) -> Tick:
            fail_dead_runs(context.instance)
            fail_unclaimed_runs(context.instance, names)
            if not ingest_context.corpus.exists():
                return dg.SkipReason(f"There is no corpus {settings.corpus} yet.")
            return _recover(context, ingest_context, settings, upstream)

        return with_corpus(context, settings, upstream, tick)

    return watch_ledger


def _recover(
    context: dg.SensorEvaluationContext,
    ingest_context: IngestContext,
    settings: CorpusConfig,
    upstream: Sequence[dg.AssetKey],
) -> Tick:
    names, corpus, instance = DagsterNames.of(settings), ingest_context.corpus, context.instance
    generations = (corpus, *other_generations(corpus))
    in_doubt = {saga: run for generation in generations for saga, run in runs_in_doubt(generation).items()}
    reports = [recover(generation, dead_runs=ended_runs(instance, generation)) for generation in generations]
    settled = [saga for report in reports for saga in (*report.compensated, *report.abandoned)]
    fail_silent_runs(instance, in_doubt, settled)
    erased = continue_erasures(corpus, DagsterRecords(instance, names))
    for receipt in erased:
        context.log.warning(f"Finished the erasure {receipt.erasure}: {receipt}")
    recalled = recall_partitions(instance, names, corpus, settings.scheme)
    if recalled:
        context.log.warning(
            f"Partitions were missing from Dagster and were added: {recalled}. A backfill materializes them"
        )
    replayed = replay_reports(instance, names, ingest_context, upstream)
    head_reported = report_silent_change(instance, names, corpus, instance.report_runless_asset_event)
    current = reports[0]
    has_moved = current.head_after != current.head_before
    if not (settled or replayed.reported or replayed.needs_rerun or head_reported or has_moved or erased):
        return dg.SkipReason("No saga is in doubt.")
    if settled:
        context.log.warning(f"Settled sagas {', '.join(map(str, settled))}")
    runs = [
        dg.RunRequest(run_key=key, run_config=shared_run(names.step, partitions, withhold_recipe=True).run_config)
        for key, partitions in replayed.needs_rerun.items()
    ]
    if runs:
        return dg.SensorResult(run_requests=runs)
    return dg.SkipReason(
        f"Settled {counted(len(settled), 'saga')}, reported {counted(replayed.reported, 'publication')}. "
        f"Head is version {current.head_after}."
    )
