"""What the ops of these jobs share: a corpus that is open during the op, and the report of what a saga published."""

from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

import dagster as dg

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


def corpus_resource(names: DagsterNames) -> set[str]:
    """The resource key that an op needs for `corpus_of_run`."""
    return {resource_key(names, VersionedLanceDBResource)}


@contextmanager
def corpus_of_run(context: dg.OpExecutionContext, settings: CorpusConfig) -> Generator[Corpus]:
    """Open the corpus for a block of an op. An error of the block fails the run, which is not repeated.

    Args:
        context: Context of the op, which requires `corpus_resource`.
        settings: Settings of the corpus.
    """
    lancedb = resource_of(context.resources, DagsterNames.of(settings), VersionedLanceDBResource)
    tag_run_process(context.instance, context.run.run_id)
    try:
        with lancedb.corpus(settings) as corpus:
            yield corpus
    except IngestError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def report_published(reporter: DocumentReporter, corpus: Corpus, saga: UUID, status: str) -> None:
    """Materialize the documents that a saga published, and record in the ledger that they were reported.

    Args:
        reporter: Reports documents to Dagster.
        corpus: The corpus.
        saga: The published saga.
        status: The status of the documents that the UI shows.
    """
    with corpus.database.transaction() as connection:
        changes = reports.latest_changes(connection, saga)
    reporter.report(corpus, changes, status)
    with corpus.database.transaction() as connection:
        sagas.mark_reported(connection, saga)
    report_head(reporter.instance, reporter.names, corpus, reporter.log)
