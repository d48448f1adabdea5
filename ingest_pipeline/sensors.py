"""What watches: the source for files that differ from the corpus, and the ledger for writers that died.

Neither keeps a cursor. Each tick compares what is there with what should be, so nothing is forgotten when a tick, a run
or the daemon is lost, and a file that is changed back to earlier bytes is seen like any other.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

import dagster as dg

from ingest_pipeline import ledger
from ingest_pipeline.assets.partitions import document_partitions
from ingest_pipeline.comparison import compare
from ingest_pipeline.dead_runs import ended_runs, report_dead_runs
from ingest_pipeline.errors import IngestError
from ingest_pipeline.late_reports import report_late
from ingest_pipeline.ledger import MAX_ATTEMPTS, Failure
from ingest_pipeline.pipeline import PipelineSettings, clear_settled_failures
from ingest_pipeline.planning import DocumentPlan
from ingest_pipeline.preparation import Workshop
from ingest_pipeline.recovery import recover
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource

# So many files or fewer get a run each, which the UI links to its partition. More share one: a run costs seconds of
# start-up whatever it does.
_OWN_RUNS = 5
_SHARED_RUN = 1000
_BACKOFF = timedelta(seconds=30)
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def runs_for(documents: int) -> int:
    """How many runs the source sensor requests for so many documents that differ."""
    return documents if documents <= _OWN_RUNS else ceil(documents / _SHARED_RUN)


def source_sensor(settings: PipelineSettings, job: str, *, running: bool = True) -> dg.SensorDefinition:
    """Requests runs for files that are new, changed or gone."""
    step = f"{settings.corpus}_ingest"

    @dg.sensor(
        name=f"{settings.corpus}_source_sensor",
        description="Compares the source with the catalog, and requests runs for documents that differ.",
        job_name=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={resource_key(settings.corpus, VersionedLanceDBResource)},
    )
    def watch_source(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        busy = _partitions_under_way(context.instance, job)
        if busy is None:
            return dg.SkipReason("A run over many documents is under way; what it leaves is looked at afterwards.")
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop:
                page = compare(workshop)
                clear_settled_failures(workshop, page)
                plans, held = [*page.puts, *page.removals], page.held
                waiting = _held_back(workshop)
        except IngestError as error:
            return dg.SkipReason(str(error))
        due = [plan for plan in plans if plan.partition not in busy and not _waits(plan, waiting)]
        if not due:
            return dg.SkipReason(f"{len(plans)} documents differ, {len(held)} are held by a rollback; none is due.")
        return _requests(step, document_partitions(settings.corpus), due)

    return watch_source


def recovery_sensor(settings: PipelineSettings, *, running: bool = True) -> dg.SensorDefinition:
    """Settles what writers left behind that died."""

    @dg.sensor(
        name=f"{settings.corpus}_recovery_sensor",
        description="Settles what dead writers left, and reports what they published and could not say.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={resource_key(settings.corpus, VersionedLanceDBResource)},
    )
    def watch_ledger(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lancedb = resource_of(context.resources, settings.corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop:
                report_dead_runs(context.instance)
                report = recover(workshop.corpus, dead_runs=ended_runs(context.instance, workshop.corpus))
                late = report_late(context.instance, workshop.corpus)
        except IngestError as error:
            return dg.SkipReason(str(error))
        settled = [*report.compensated, *report.abandoned]
        if not settled and not late and report.head_after == report.head_before:
            return dg.SkipReason("Nothing is in doubt.")
        context.log.warning(f"Settled sagas {', '.join(map(str, settled))}; head is version {report.head_after}")
        return dg.SkipReason(
            f"Settled {len(settled)} sagas, reported {late} publications; head is version {report.head_after}."
        )

    return watch_ledger


def _requests(step: str, definition: dg.DynamicPartitionsDefinition, due: Sequence[DocumentPlan]) -> dg.SensorResult:
    added = definition.build_add_request(sorted({plan.partition for plan in due if plan.source is not None}))
    if len(due) <= _OWN_RUNS:
        # A partition whose file is gone may be gone from Dagster too, so its run names it in the configuration.
        runs = [
            dg.RunRequest(partition_key=plan.partition, run_config=_configuration(step, []))
            if plan.source
            else _shared(step, [plan.partition])
            for plan in due
        ]
    else:
        runs = [_shared(step, [plan.partition for plan in due[:_SHARED_RUN]])]
    return dg.SensorResult(run_requests=runs, dynamic_partitions_requests=[added])


def _shared(step: str, partitions: list[str]) -> dg.RunRequest:
    return dg.RunRequest(run_config=_configuration(step, partitions))


def _configuration(step: str, partitions: list[str]) -> dict[str, object]:
    # A person may roll a document back between the request and the run.
    return {"ops": {step: {"config": {"partitions": partitions, "release_holds": False}}}}


def _partitions_under_way(instance: dg.DagsterInstance, job: str) -> set[str] | None:
    """Partitions whose run has not ended; None if a run over many is among them."""
    busy: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=_UNDER_WAY)):
        partition = _only_partition(run.tags)
        if partition is None:
            return None
        busy.add(partition)
    return busy


def _only_partition(tags: Mapping[str, str]) -> str | None:
    """The one partition of a run; a backfill's run names it as a range. None: the run has none, or several."""
    first = tags.get("dagster/asset_partition_range_start")
    last = tags.get("dagster/asset_partition_range_end")
    return tags.get("dagster/partition") or (first if first == last else None)


def _held_back(workshop: Workshop) -> dict[str, Failure]:
    """Failures that wait for their next attempt, or have had their last."""
    with workshop.corpus.database.transaction() as connection:
        failures = ledger.failures(connection, workshop.corpus.name)
    now = datetime.now(UTC)
    return {
        failure.key: failure
        for failure in failures
        if failure.attempts >= MAX_ATTEMPTS or failure.failed_at + _BACKOFF * 2 ** (failure.attempts - 1) > now
        if failure.recipe == workshop.recipe.fingerprint
    }


def _waits(plan: DocumentPlan, held_back: dict[str, Failure]) -> bool:
    failure = held_back.get(plan.key)
    return failure is not None and plan.source is not None and plan.source.etag == failure.etag
