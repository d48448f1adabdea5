"""The job that rolls documents back. The Launchpad and the command line run it."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import IngestError
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.reporting.head import report_head
from ingest_pipeline.reporting.materializations import DocumentReporter
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
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

    @dg.op(name=names.name("rollback"), required_resource_keys={resource_key(names, VersionedLanceDBResource)})
    def roll_back(context: dg.OpExecutionContext, config: RollbackConfig) -> None:
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        tag_run_process(context.instance, context.run.run_id)
        try:
            with lancedb.corpus(settings) as corpus:
                recipe = settings.with_embedding(corpus.head().embedding).recipe
                reporter = DocumentReporter(context.instance, names, recipe, upstream, context.log_event)
                done = rollback(
                    corpus,
                    config.version,
                    config.partitions,
                    recipe=recipe,
                    run_id=context.run.run_id,
                    confirm_removals=config.confirm_removals,
                    report=lambda rolled_back: _report(reporter, corpus, rolled_back),
                )
        except IngestError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
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


def _report(reporter: DocumentReporter, corpus: Corpus, rolled_back: RolledBack) -> None:
    """Materialize the documents that the rollback published. To be called after the publication."""
    with corpus.database.transaction() as connection:
        changes = reports.latest_changes(connection, rolled_back.saga)
    reporter.report(corpus, changes, f"rolled back to version {rolled_back.target_version}")
    with corpus.database.transaction() as connection:
        sagas.mark_reported(connection, rolled_back.saga)
    report_head(reporter.instance, reporter.names, corpus, reporter.log)
