"""The job that erases documents. Its own run configuration names them, and is erased, too."""

import dagster as dg
from pydantic import Field

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.erasure.erase import erase
from ingest_pipeline.orchestration.jobs.corpus_op import corpus_of_run, corpus_resource
from ingest_pipeline.reporting.erasure import DagsterRecords
from ingest_pipeline.reporting.head import report_head
from ingest_pipeline.resources.names import DagsterNames


class EraseConfig(dg.Config):
    """What to erase, for the Launchpad."""

    keys: list[str] = Field(description="Keys of the documents to erase. This cannot be undone.")
    reason: str = Field(description="Why, for the ledger, which keeps it. Use a number, not a name.")


def erase_job(settings: CorpusConfig) -> dg.JobDefinition:
    """Erases documents from both stores, all versions and Dagster, and searches for what is left of them.

    Args:
        settings: Settings of the corpus.
    """
    names = DagsterNames.of(settings)

    @dg.op(name=names.name("erase"), required_resource_keys=corpus_resource(names))
    def erase_documents(context: dg.OpExecutionContext, config: EraseConfig) -> None:
        with corpus_of_run(context, settings) as corpus:
            records = DagsterRecords(context.instance, names)
            receipt = erase(corpus, config.keys, reason=config.reason, elsewhere=records)
            report_head(context.instance, names, corpus, context.log_event)
        context.add_output_metadata(
            {
                "erasure": str(receipt.erasure),
                "documents": receipt.documents,
                "fingerprints": receipt.fingerprints,
                "found": receipt.found,
                "files": receipt.files,
                "tables": receipt.tables,
                "removed": dg.MetadataValue.json(receipt.removed),
            }
        )
        context.log.info(str(receipt))
        if receipt.found:
            raise dg.Failure(f"{receipt}: {', '.join(receipt.places)}", allow_retries=False)

    @dg.job(
        name=names.erase_job,
        executor_def=dg.in_process_executor,
        description="Erases documents from both stores, all versions and Dagster. This cannot be undone.",
    )
    def job() -> None:
        erase_documents()

    return job
