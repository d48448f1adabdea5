"""The job that rolls documents back. The Launchpad and the command line run it."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.jobs.corpus_op import corpus_of_run, corpus_resource, report_published
from ingest_pipeline.reporting.materializations import DocumentReporter
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.saga.rollback import RolledBack, rollback


class RollbackConfig(dg.Config):
    """What to roll back, for the Launchpad."""

    version: int = Field(
        description="The publication to go back to: `head` in a partition's metadata, or `ingest-pipeline history`."
    )
    partitions: list[str] = Field(default=[], description="Partitions to roll back. Empty: the whole corpus.")
    confirm_removals: bool = Field(
        default=False, description="Remove documents even if they are all or most of the corpus."
    )


def rollback_job(settings: CorpusConfig, upstream: Sequence[dg.AssetKey] = ()) -> dg.JobDefinition:
    """Brings documents back to an earlier publication, and materializes them as they were.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
    """
    names = DagsterNames.of(settings)

    @dg.op(name=names.name("rollback"), required_resource_keys=corpus_resource(names))
    def roll_back(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        with corpus_of_run(context, settings) as corpus:
            recipe = settings.with_embedding(corpus.head().embedding).recipe
            reporter = DocumentReporter(context.instance, names, recipe, upstream, context.log_event)

            def report(rolled_back: RolledBack) -> None:
                status = f"rolled back to version {rolled_back.target_version}"
                report_published(reporter, corpus, rolled_back.saga, status)

            done = rollback(
                corpus,
                config.version,
                config.partitions,
                recipe=recipe,
                run_id=context.run.run_id,
                confirm_removals=config.confirm_removals,
                report=report,
            )
        changes = [change for rolled_back in done for change in rolled_back.changes]
        context.add_output_metadata(
            {
                "documents": sum(change.change != "remove" for change in changes),
                "removed": sum(change.change == "remove" for change in changes),
                "chunks": sum(change.chunk_count for change in changes),
                "publications": len(done),
                "rolled_back_to": config.version,
            }
        )

    @dg.job(
        name=names.rollback_job,
        executor_def=dg.in_process_executor,
        description="Brings documents, or the whole corpus, back to an earlier publication, in both stores.",
    )
    def job() -> None:
        roll_back()

    return job
