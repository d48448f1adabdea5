"""What happens by the clock: the audit of the whole corpus every hour, and every night the sweep and what is stale."""

import dagster as dg

from ingest_pipeline.errors import IngestError
from ingest_pipeline.generations import drop_left, others
from ingest_pipeline.pipeline import PipelineSettings
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.run_requests import shared_run
from ingest_pipeline.sweep import sweep


def audit_schedule(
    corpus: str, checks: list[dg.AssetChecksDefinition], *, running: bool = False
) -> dg.ScheduleDefinition:
    """Runs the asset checks of a corpus. Off until a person switches it on, since an audit reads every row."""
    job = dg.define_asset_job(
        f"{corpus}_audit_job",
        selection=dg.AssetSelection.checks(*checks),
        executor_def=dg.in_process_executor,
        description="Compares LanceDB with Postgres at head, and names documents that keep failing.",
    )
    return dg.ScheduleDefinition(
        name=f"{corpus}_audit_schedule", job=job, cron_schedule="0 * * * *", default_status=_status(running)
    )


def sweep_schedule(settings: PipelineSettings, *, running: bool = True) -> dg.ScheduleDefinition:
    """Removes what belongs to nothing."""
    corpus = settings.corpus

    @dg.op(name=f"{corpus}_sweep", required_resource_keys={resource_key(corpus, VersionedLanceDBResource)})
    def sweep_corpus(context: dg.OpExecutionContext) -> None:
        lancedb = resource_of(context.resources, corpus, VersionedLanceDBResource)
        try:
            with lancedb.workshop(settings) as workshop:
                reports = [sweep(each) for each in (workshop.corpus, *others(workshop.corpus))]
                dropped = drop_left(workshop.corpus)
        except IngestError as error:
            raise dg.Failure(str(error)) from error
        context.add_output_metadata(
            {
                "files": sum(len(report.files) for report in reports),
                "versions": sum(len(report.versions) for report in reports),
                "rows": sum(report.rows for report in reports),
                "generations_dropped": len(dropped),
            }
        )

    @dg.job(
        name=f"{corpus}_sweep_job",
        executor_def=dg.in_process_executor,
        description="Removes files, undone versions and rows that no publication and no running saga owns.",
    )
    def sweep_job() -> None:
        sweep_corpus()

    return dg.ScheduleDefinition(
        name=f"{corpus}_sweep_schedule",
        job=sweep_job,
        cron_schedule="0 3 * * *",
        default_status=_status(running),
    )


def stale_schedule(settings: PipelineSettings, job: str) -> dg.ScheduleDefinition:
    """Ingests what is new, changed, gone or failed, in one run. Off, because the source sensor does it all day long.

    It is for those who switch the sensor off, to ingest at night.
    """
    step = f"{settings.corpus}_ingest"
    return dg.ScheduleDefinition(
        name=f"{settings.corpus}_stale_schedule",
        job_name=job,
        cron_schedule="0 2 * * *",
        run_config=shared_run(step, [], leave_waiting=True, release_holds=False).run_config,
        description="Ingests all that differs from the source, in one run; documents in quarantine are left alone.",
    )


def _status(running: bool) -> dg.DefaultScheduleStatus:  # noqa: FBT001  the one thing it is about
    return dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
