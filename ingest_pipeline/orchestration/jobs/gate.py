"""The job that releases or drops what did not pass its gates. The Launchpad and the command line run it."""

from collections.abc import Sequence
from enum import Enum
from uuid import UUID

import dagster as dg
from pydantic import Field

from ingest_pipeline.assets.checks.gate_report import log_gate
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.ingestion.gate_decisions import drop, release, waiting_for
from ingest_pipeline.orchestration.jobs.corpus_op import corpus_of_run, corpus_resource, report_published
from ingest_pipeline.reporting.materializations import DocumentReporter
from ingest_pipeline.resources.names import DagsterNames


class GateAction(Enum):
    """What becomes of a publication that did not pass its gates."""

    RELEASE = "release"
    """Publish it as it was prepared. For a re-embedding: let the next one switch readers."""
    DROP = "drop"
    """End it. Its documents are planned again. For a re-embedding: abort it."""


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

    @dg.op(name=names.name("gate"), required_resource_keys=corpus_resource(names))
    def decide(context: dg.OpExecutionContext, config: GateConfig) -> None:
        with corpus_of_run(context, settings) as corpus:
            found = waiting_for(corpus, config.publication)
            if config.action is GateAction.DROP:
                drop(corpus, found)
                context.log.info(f"{found} was dropped")
            elif (version := release(corpus, found)) is None:
                context.log.info(f"{found} was released. The next re-embedding switches readers")
            else:
                assert isinstance(found.id, UUID)  # noqa: S101  a generation is not published
                recipe = settings.with_embedding(corpus.head().embedding).recipe
                reporter = DocumentReporter(context.instance, names, recipe, upstream, context.log_event)
                report_published(reporter, corpus, found.id, "published after a release from its gates")
                context.log.info(f"{found} was published as version {version}")
            log_gate(context, names, corpus)

    @dg.job(
        name=names.gate_job,
        executor_def=dg.in_process_executor,
        description="Publishes or ends a publication that did not pass its gates.",
    )
    def job() -> None:
        decide()

    return job
