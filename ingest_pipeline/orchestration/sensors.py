"""What watches: the source for files that differ from the corpus, and the ledger for writers that died.

Each tick compares what is there with what should be, so nothing is forgotten when a tick, a run, a cursor or the daemon
is lost, and a file that is changed back to earlier bytes is seen like any other.
"""

import dagster as dg

from ingest_pipeline.assets.ingest_run import run_configuration
from ingest_pipeline.config import CorpusConfig
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.batch_jobs import waiting_keys
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.orchestration.run_requests import MOST_RUNS, partitions_under_way, run_requests, shared_run
from ingest_pipeline.orchestration.source_cursor import SourcePass
from ingest_pipeline.planning.backoff import clear_resolved, read_retry_backoff
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.planner import Limits, Page, Planner
from ingest_pipeline.planning.removal_guard import withheld
from ingest_pipeline.planning.run_backoff import waiting_backoff
from ingest_pipeline.reporting.partitions import corpus_partitions, recall_partitions
from ingest_pipeline.reporting.replay import replay_reports
from ingest_pipeline.reporting.run_status import (
    ended_runs,
    fail_dead_runs,
    fail_silent_runs,
    fail_unclaimed_runs,
    runs_in_doubt,
)
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.saga.generations import other_generations
from ingest_pipeline.saga.recover import recover

# A tick is given up by Dagster after 60 seconds, requests included.
_PAGE_SECONDS = 20.0
_PAGE_DOCUMENTS = 8000


def source_sensor(settings: CorpusConfig, job: str, pool: str, *, running: bool = True) -> dg.SensorDefinition:
    """Requests runs for files that are new, changed or gone.

    Args:
        settings: Of the corpus.
        job: That ingests it.
        pool: Of the runs of the job.
        running: Whether it is on until a person says otherwise.
    """
    step = f"{settings.corpus}_ingest"
    definition = corpus_partitions(settings.corpus, settings.scheme)

    @dg.sensor(
        name=f"{settings.corpus}_source_sensor",
        description="Compares the source with the catalog, and requests runs for documents that differ.",
        job_name=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={
            resource_key(settings.corpus, kind) for kind in (VersionedLanceDBResource, OpenAIEmbedderResource)
        },
    )
    def watch_source(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        count, busy = partitions_under_way(context.instance, job, step, definition)
        if busy is None:
            return dg.SkipReason("A run over all documents is under way; what it leaves is looked at afterwards.")
        if count >= MOST_RUNS:
            return dg.SkipReason(f"{count} runs are under way; more are requested when they have ended.")
        _limit(context.instance, pool)
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        embedder = resource_of(context.resources, settings.corpus, OpenAIEmbedderResource)
        try:
            with lancedb.ingest_context(settings, create=False) as ingest_context:
                backoff = waiting_backoff(ingest_context.corpus, run_configuration(ingest_context, embedder))
                if backoff is not None:
                    return dg.SkipReason(backoff.note)
                return _tick(context, ingest_context, settings, busy)
        except IngestError as error:
            return dg.SkipReason(str(error))

    return watch_source


def _limit(instance: dg.DagsterInstance, pool: str) -> None:
    """Give the pool its limit. Dagster would when its queue first meets it, and let all runs of that pass through."""
    events = instance.event_log_storage
    if events.supports_global_concurrency_limits and pool not in events.get_concurrency_keys():
        events.initialize_concurrency_limit_to_default(pool)


def _tick(
    context: dg.SensorEvaluationContext, ingest_context: IngestContext, settings: CorpusConfig, busy: set[str]
) -> dg.SensorResult | dg.SkipReason:
    """Look at one page, and request what of it is due."""
    now = SourcePass.parse(context.cursor)
    limits = Limits(_PAGE_DOCUMENTS, _PAGE_SECONDS, settings.min_age_seconds)
    page = Planner(ingest_context).page(now.after, limits)
    clear_resolved(ingest_context, page)
    removals = now.advance(page)
    waiting = read_retry_backoff(ingest_context)
    ordered = waiting_keys(ingest_context)
    guard = RecipeGuard(ingest_context)
    guard.accept()
    allowed, withheld_by_recipe = guard.split(page.puts)
    puts = [plan for plan in allowed if waiting.failure_of(plan) is None and plan.key not in ordered]
    due = sorted(
        (plan for plan in (*puts, *removals) if plan.partition not in busy), key=lambda plan: (plan.partition, plan.key)
    )
    context.update_cursor((now.next if now.ended else now).dump())
    said = _said(page, now, ingest_context, left=len(allowed) - len(puts))
    if withheld_by_recipe:
        said += f" {guard.error}"
    if not due:
        return dg.SkipReason(said)
    context.log.info(said)
    return _requests(settings, due, whole=len(removals) == len(page.removals))


def _requests(settings: CorpusConfig, due: list[DocumentPlan], *, whole: bool) -> dg.SensorResult:
    step = f"{settings.corpus}_ingest"
    definition = corpus_partitions(settings.corpus, settings.scheme)
    runs = run_requests(
        step, due, skip_backed_off=True, release_holds=False, withhold_removals=not whole, withhold_recipe=True
    )[:MOST_RUNS]
    added: list[dg.AddDynamicPartitionsRequest] = []
    if isinstance(definition, dg.DynamicPartitionsDefinition):
        added = [definition.build_add_request(sorted({plan.partition for plan in due if plan.source is not None}))]
    return dg.SensorResult(run_requests=runs, dynamic_partitions_requests=added)


def _said(page: Page, now: SourcePass, ingest_context: IngestContext, *, left: int) -> str:
    """What the tick found, as one line."""
    said = [f"{len(page.puts) + len(page.removals)} documents differ among {page.listed}"]
    if page.last is not None:
        said.append(f"up to {page.last!r}; the next tick goes on there")
    if page.too_recent:
        said.append(f"{len(page.too_recent)} may still be written to")
    if left:
        said.append(f"{left} of them cannot be read, failed, or wait for ordered vectors")
    if page.on_hold:
        said.append(f"{len(page.on_hold)} are held by a rollback")
    said += [f"{count} are left out: {reason}" for reason, count in page.excluded.items()]
    line = ", ".join(said) + "."
    if now.ended and now.is_suspicious:
        line += f" {withheld(ingest_context.corpus.name, ingest_context.source.url, now.gone, now.latest)}"
    return line


def recovery_sensor(settings: CorpusConfig, job: str, *, running: bool = True) -> dg.SensorDefinition:
    """Settles what writers left behind that died."""

    @dg.sensor(
        name=f"{settings.corpus}_recovery_sensor",
        description="Settles what dead writers left, and reports what they published and could not say.",
        job_name=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={resource_key(settings.corpus, VersionedLanceDBResource)},
    )
    def watch_ledger(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.ingest_context(settings, create=False) as ingest_context:
                fail_dead_runs(context.instance)
                fail_unclaimed_runs(context.instance, settings.corpus)
                if not ingest_context.corpus.exists():
                    return dg.SkipReason(f"There is no corpus {settings.corpus} yet.")
                generations = (ingest_context.corpus, *other_generations(ingest_context.corpus))
                in_doubt = {saga: run for generation in generations for saga, run in runs_in_doubt(generation).items()}
                report, *beside = [
                    recover(generation, dead_runs=ended_runs(context.instance, generation))
                    for generation in generations
                ]
                settled = [saga for each in (report, *beside) for saga in (*each.compensated, *each.abandoned)]
                fail_silent_runs(context.instance, in_doubt, settled)
                recalled = recall_partitions(context.instance, ingest_context.corpus, settings.scheme)
                late = replay_reports(context.instance, ingest_context)
        except IngestError as error:
            return dg.SkipReason(str(error))
        if recalled:
            context.log.warning(
                f"Dagster did not know {recalled} partitions of what stands; a backfill shows them as done"
            )
        if not settled and not late.reported and not late.unclear and report.head_after == report.head_before:
            return dg.SkipReason("Nothing is in doubt.")
        context.log.warning(f"Settled sagas {', '.join(map(str, settled))}; head is version {report.head_after}")
        step = f"{settings.corpus}_ingest"
        runs = [
            dg.RunRequest(run_key=key, run_config=shared_run(step, names, withhold_recipe=True).run_config)
            for key, names in late.unclear.items()
        ]
        if runs:
            return dg.SensorResult(run_requests=runs)
        return dg.SkipReason(
            f"Settled {len(settled)} sagas, reported {late.reported} publications; head is version {report.head_after}."
        )

    return watch_ledger
