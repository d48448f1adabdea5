"""The job that re-embeds a corpus with another embedding model, in steps that the user chooses."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from ingest_pipeline.assets.checks.gate_report import log_gate
from ingest_pipeline.assets.embeddings import run_metadata
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import (
    ConfigurationError,
    IngestError,
    PublicationBlockedError,
    ReembeddingIncompleteError,
    UnreadableError,
)
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.ingestion.reembed import Action, Reembedding, begin
from ingest_pipeline.ingestion.summary import Summary
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import reports
from ingest_pipeline.postgres.catalog.corpora import GenerationState
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.reporting.head import report_head
from ingest_pipeline.reporting.interrupts import run_interruptibly
from ingest_pipeline.reporting.materializations import DocumentReporter, drop_empty_partitions
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.saga.generations import abort, drop, other_generations
from ingest_pipeline.types import counted

_RESOURCES = (VersionedLanceDBResource, OpenAIEmbedderResource)


class ReembedConfig(dg.Config):
    """Configuration of one run, for the Launchpad."""

    action: Action = Field(
        default=Action.SWITCH,
        description="SWITCH: fill a second table with vectors of the model of `embedder`, then switch "
        "readers to it. FILL: only fill it. ABORT: stop; the table is kept for a week. DROP: "
        "delete the tables of retired generations.",
    )


def reembed_job(settings: CorpusConfig, upstream: Sequence[dg.AssetKey] = ()) -> dg.JobDefinition:
    """Re-embeds a corpus with the model of its resource `embedder`. Launching the job accepts the cost.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
    """
    names = DagsterNames.of(settings)

    @dg.op(name=names.name("reembed"), required_resource_keys={resource_key(names, kind) for kind in _RESOURCES})
    def reembed(context: dg.OpExecutionContext, config: ReembedConfig) -> None:
        tag_run_process(context.instance, context.run.run_id)
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
        try:
            wanted = settings.with_embedding(embedder.api_settings().embedding)
            with lancedb.catalog.connect() as database:
                if config.action in (Action.SWITCH, Action.FILL):
                    opened = begin(database, wanted)
                    removed = _fill(context, opened, names, embedder, then_switch=config.action is Action.SWITCH)
                    if removed is not None:
                        _report_all(context, names, opened[1], upstream, removed)
                else:
                    _end_generations(context, find_corpus(database, wanted), config.action)
        except IngestError as error:
            # There is no automatic retry. Embeddings are recorded, and the next run continues from there.
            raise dg.Failure(str(error), allow_retries=False) from error

    @dg.job(
        name=names.reembed_job,
        executor_def=dg.in_process_executor,
        description="Re-embeds the corpus with another model: a second table is filled, then readers switch to it.",
    )
    def job() -> None:
        reembed()

    return job


def _fill(
    context: dg.OpExecutionContext,
    opened: tuple[IngestContext, IngestContext],
    names: DagsterNames,
    embedder: OpenAIEmbedderResource,
    *,
    then_switch: bool,
) -> Sequence[str] | None:
    """Fill the second of two generations, and switch readers to it; returns the partitions that the switch removed.

    Returns None if readers were not switched.
    """
    old, new = opened
    context.log.info(
        f"Generation {new.corpus.generation} is being filled with vectors of {new.recipe.embedding}. "
        "Readers do not see it yet"
    )

    async def run() -> tuple[Reembedding, Summary]:
        async with embedder.create_embedder() as api:
            reembedding = Reembedding(
                old,
                new,
                api,
                run_id=context.run.run_id,
                create_old_embedder=lambda: embedder.create_embedder(old.recipe.embedding),
            )
            summary = await reembedding.fill()
            if then_switch:
                await reembedding.switch()
            return reembedding, summary

    try:
        reembedding, summary = run_interruptibly(run())
    except PublicationBlockedError:
        log_gate(context, names, old.corpus)
        raise
    finally:
        _report_usage(context, names, old)
    failed = {plan.key: str(error) for plan, error in (*summary.failed.values(), *summary.too_recent.values())}
    for key, problem in failed.items():
        context.log.warning(f"Document {key!r} is not in generation {new.corpus.generation}: {problem}")
    if then_switch:
        if reembedding.judgement is not None:
            log_gate(context, names, new.corpus, [reembedding.judgement])
        context.log.info(
            f"Readers see generation {new.corpus.generation} now; {old.corpus.generation} is kept for a week"
        )
        return reembedding.removed_partitions
    refused = sorted(plan.key for plan, error in summary.failed.values() if not isinstance(error, UnreadableError))
    refused += sorted(summary.too_recent)
    if refused:
        raise ReembeddingIncompleteError(
            f"{counted(len(refused), 'document')} could not be ingested: {', '.join(refused[:10])}"
        )
    return None


def _end_generations(context: dg.OpExecutionContext, corpus: Corpus, action: Action) -> None:
    wanted = GenerationState.BUILDING if action is Action.ABORT else GenerationState.RETIRED
    concerned = [generation for generation in other_generations(corpus) if generation.opened_as == wanted]
    if not concerned:
        raise ConfigurationError(f"Corpus {corpus.name!r} has no generation that is {wanted}")
    for generation in concerned:
        (abort if action is Action.ABORT else drop)(generation)
        context.log.info(f"Generation {generation.generation} is {'retired' if action is Action.ABORT else 'dropped'}")


def _report_usage(context: dg.OpExecutionContext, names: DagsterNames, ingest_context: IngestContext) -> None:
    run_id = context.run.run_id
    with ingest_context.corpus.database.transaction() as connection:
        progress, costs = reports.run_progress(connection, run_id), embedding_cache.costs(connection, run_id=run_id)
    context.log_event(dg.AssetObservation(names.key("embeddings"), metadata=run_metadata(progress, costs)))


def _report_all(
    context: dg.OpExecutionContext,
    names: DagsterNames,
    ingest_context: IngestContext,
    upstream: Sequence[dg.AssetKey],
    removed: Sequence[str],
) -> None:
    """Materialize what readers see now. If the run dies before it is done, the recovery sensor reports the rest."""
    corpus, recipe = ingest_context.corpus, ingest_context.recipe
    reporter = DocumentReporter(context.instance, names, recipe, upstream, context.log_event)
    with corpus.database.transaction() as connection:
        unreported = sagas.unreported(connection, corpus.generation)
    for saga in unreported:
        with corpus.database.transaction() as connection:
            changes = reports.latest_changes(connection, saga.id)
        reporter.report(corpus, changes, f"readers moved to {recipe.embedding}")
        with corpus.database.transaction() as connection:
            sagas.mark_reported(connection, saga.id)
    drop_empty_partitions(context.instance, names, corpus, set(removed))
    report_head(context.instance, names, corpus, context.log_event)
