"""Schedules: the audit and the maintenance of a corpus every hour, and an ingest every night."""

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import IngestError
from ingest_pipeline.maintenance.maintain import MaintenanceReport, maintain
from ingest_pipeline.orchestration.run_requests import shared_run
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.saga.generations import drop_retired, other_generations


def audit_schedule(
    names: DagsterNames, checks: list[dg.AssetChecksDefinition], *, running: bool = False
) -> dg.ScheduleDefinition:
    """Runs the asset checks of a corpus. Off by default, because an audit reads every row."""
    job = dg.define_asset_job(
        names.name("audit_job"),
        selection=dg.AssetSelection.checks(*checks),
        executor_def=dg.in_process_executor,
        description="Compares LanceDB with Postgres at head, and lists documents that keep failing.",
    )
    return dg.ScheduleDefinition(
        name=names.name("audit_schedule"), job=job, cron_schedule="0 * * * *", default_status=_status(running)
    )


def maintenance_schedule(settings: CorpusConfig, *, running: bool = True) -> dg.ScheduleDefinition:
    """Keeps the table small and fast. Writers and readers continue meanwhile."""
    names = DagsterNames.of(settings)

    @dg.op(name=names.name("maintenance"), required_resource_keys={resource_key(names, VersionedLanceDBResource)})
    def maintain_corpus(context: dg.OpExecutionContext) -> None:
        tag_run_process(context.instance, context.run.run_id)
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        try:
            with lancedb.ingest_context(settings, create=False) as ingest_context:
                if not ingest_context.corpus.exists():
                    context.log.info(f"There is no corpus {settings.corpus} yet")
                    return
                report = maintain(ingest_context.corpus, settings.retention, log=context.log.info)
                for other in other_generations(ingest_context.corpus):
                    maintain(other, settings.retention, log=context.log.info)
                dropped = drop_retired(ingest_context.corpus)
        except IngestError as error:
            raise dg.Failure(str(error)) from error
        context.add_output_metadata({**_metadata(report), "generations_dropped": len(dropped)})

    @dg.job(
        name=names.name("maintenance_job"),
        executor_def=dg.in_process_executor,
        description="Compacts small fragments, updates indices, retires old versions and sweeps orphan files.",
    )
    def maintenance_job() -> None:
        maintain_corpus()

    return dg.ScheduleDefinition(
        name=names.name("maintenance_schedule"),
        job=maintenance_job,
        cron_schedule="30 * * * *",
        default_status=_status(running),
    )


def stale_schedule(settings: CorpusConfig, *, running: bool = False) -> dg.ScheduleDefinition:
    """Ingests all documents that differ, in one run at night.

    Off by default, because the source sensor does it all day. Turn the schedule on where the sensor is off.
    """
    names = DagsterNames.of(settings)
    return dg.ScheduleDefinition(
        name=names.name("stale_schedule"),
        job_name=names.ingest_job,
        cron_schedule="0 2 * * *",
        default_status=_status(running),
        run_config=shared_run(names.step, [], skip_backed_off=True, release_holds=False).run_config,
        description="Ingests all documents that differ from the source in one run, except those in quarantine.",
    )


def _metadata(report: MaintenanceReport) -> dict[str, int]:
    before, after = report.before, report.after
    return {
        "head": report.head_version,
        "fragments_before": before.fragments,
        "fragments_after": after.fragments,
        "versions_before": before.versions,
        "versions_after": after.versions,
        "bytes_before": before.bytes,
        "bytes_after": after.bytes,
        "rows_rewritten": report.compaction.rows,
        "rows_indexed": sum(index.built for index in report.indices),
        "rows_unindexed": max((index.unindexed for index in report.indices), default=0),
        "oldest_version": report.retention.oldest_version,
        "swept_files": len(report.sweep.files),
        "swept_rows": report.sweep.rows,
    }


def _status(running: bool) -> dg.DefaultScheduleStatus:  # noqa: FBT001  its only argument
    return dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
