"""The job that releases or drops what did not pass its gates. The Launchpad and the command line run it."""

from collections.abc import Sequence
from enum import Enum
from uuid import UUID

import dagster as dg
from pydantic import Field

from ingest_pipeline.assets.checks.gate_report import log_gate
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.blocked import Waiting, drop, release, waiting_for
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.reporting.head import report_head
from ingest_pipeline.reporting.materializations import DocumentReporter
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames


class GateAction(Enum):
    """What becomes of a publication that did not pass its gates."""

    RELEASE = "release"
    """Publish it as it was prepared. Of a re-embedding: let the next one switch readers."""
    DROP = "drop"
    """End it. Its documents are planned again. Of a re-embedding: abort it."""


class GateConfig(dg.Config):
    """What to release or to drop, for the Launchpad."""

    action: GateAction = Field(
        description="RELEASE: publish it as it was prepared. DROP: end it; its documents are planned again."
    )
    publication: str | None = Field(
        default=None,
        description="Id of the blocked publication, or name of the generation, as the check `gate` and `gate status` "
        "show it. Default: the only one.",
    )


def gate_job(settings: CorpusConfig, upstream: Sequence[dg.AssetKey] = ()) -> dg.JobDefinition:
    """Releases or drops a publication that did not pass its gates.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
    """
    names = DagsterNames.of(settings)

    @dg.op(name=names.name("gate"), required_resource_keys={resource_key(names, VersionedLanceDBResource)})
    def decide(context: dg.OpExecutionContext, config: GateConfig) -> None:
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        tag_run_process(context.instance, context.run.run_id)
        try:
            with lancedb.corpus(settings) as corpus:
                found = waiting_for(corpus, config.publication)
                if config.action is GateAction.DROP:
                    drop(corpus, found)
                    context.log.info(f"{found} was dropped")
                elif (version := release(corpus, found)) is None:
                    context.log.info(f"{found} was released. The next re-embedding switches readers")
                else:
                    recipe = settings.with_embedding(corpus.head().embedding).recipe
                    reporter = DocumentReporter(context.instance, names, recipe, upstream, context.log_event)
                    _report(reporter, corpus, found)
                    context.log.info(f"{found} was published as version {version}")
                log_gate(context, names, corpus)
        except IngestError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    @dg.job(
        name=names.gate_job,
        executor_def=dg.in_process_executor,
        description="Publishes or ends a publication that did not pass its gates.",
    )
    def job() -> None:
        decide()

    return job


def _report(reporter: DocumentReporter, corpus: Corpus, released: Waiting) -> None:
    """Materialize the documents that the release published. To be called after the publication."""
    assert isinstance(released.id, UUID)  # noqa: S101  a generation is not published
    with corpus.database.transaction() as connection:
        changes = reports.latest_changes(connection, released.id)
    reporter.report(corpus, changes, "published after a release from its gates")
    with corpus.database.transaction() as connection:
        sagas.mark_reported(connection, released.id)
    report_head(reporter.instance, reporter.names, corpus, reporter.log)
