"""What happens by the clock: the audit of the whole corpus, every hour."""

import dagster as dg


def audit_schedule(corpus: str, checks: list[dg.AssetChecksDefinition]) -> dg.ScheduleDefinition:
    """Runs the asset checks of a corpus. Off until a person switches it on, since an audit reads every row."""
    job = dg.define_asset_job(
        f"{corpus}_audit_job",
        selection=dg.AssetSelection.checks(*checks),
        executor_def=dg.in_process_executor,
        description="Compares LanceDB with Postgres at head, and names documents that keep failing.",
    )
    return dg.ScheduleDefinition(name=f"{corpus}_audit_schedule", job=job, cron_schedule="0 * * * *")
