"""The step that materializes all assets of a corpus, and reports to Dagster what it published."""

from collections.abc import Iterator, Sequence
from typing import NoReturn

import dagster as dg
from dagster._core.events import DagsterEvent

from ingest_pipeline.assets.checks.check_reports import log_checks_of_last_change, run_check_specs
from ingest_pipeline.assets.ingest_run import IngestConfig, StepRun, is_repeated
from ingest_pipeline.assets.outputs import outputs
from ingest_pipeline.assets.run_report import RunReport
from ingest_pipeline.assets.specs import AssetOptions, corpus_specs
from ingest_pipeline.assets.tables import table
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import IngestError
from ingest_pipeline.ingestion.outcome import IngestOutcome, Problem
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.reporting.run_status import tag_run_process
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import ASSETS, DagsterNames
from ingest_pipeline.resources.source import DocumentSourceResource
from ingest_pipeline.types import counted

_MAX_ROWS = 200
_MAX_RETRIES = 2
_RETRY_SECONDS = 5
_RESOURCES = (DocumentSourceResource, VersionedLanceDBResource, OpenAIEmbedderResource)


def ingest_assets(settings: CorpusConfig, options: AssetOptions, pool: str) -> dg.AssetsDefinition:
    """Chunks, embeddings, metadata and head of a corpus, materialized by one step.

    Any of them can be selected alone. The step publishes and materializes all of them nevertheless, except if only the
    head is selected.

    Args:
        settings: Settings of the corpus.
        options: How the assets appear in Dagster.
        pool: Pool of the step.

    Raises:
        ConfigurationError: The translation changes the key of an asset.
    """
    names = DagsterNames.of(settings)

    @dg.multi_asset(
        name=names.step,
        specs=corpus_specs(settings, options),
        check_specs=run_check_specs(names, gated=settings.gates is not None),
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        pool=pool,
        required_resource_keys={resource_key(names, kind) for kind in _RESOURCES},
    )
    def ingest(context: dg.AssetExecutionContext, config: IngestConfig) -> Iterator[DagsterEvent]:
        source = resource_of(context.resources, names, DocumentSourceResource)
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
        # Nothing else notices a run that dies together with the code server which started it.
        tag_run_process(context.instance, context.run.run_id)
        # A run may be launched with other resources than the definitions name.
        wanted = settings.replace(
            source=source.url,
            lancedb_uri=lancedb.uri,
            embedding_model=embedder.model,
            embedding_dimensions=embedder.dimensions,
            chunk_size=settings.chunk_size if config.chunk_size is None else config.chunk_size,
            chunk_overlap=settings.chunk_overlap if config.chunk_overlap is None else config.chunk_overlap,
        )
        try:
            if context.selected_asset_keys.isdisjoint(map(names.key, ASSETS)):
                with lancedb.ingest_context(wanted, create=False) as ingest_context:
                    yield from _report_only(context, names, ingest_context)
                return
            with lancedb.ingest_context(wanted, confirm_columns=config.confirm_columns) as ingest_context:
                run = StepRun(context, names, ingest_context, embedder, config, settings=wanted)
                try:
                    outcome = run.run(
                        _wanted_partitions(context, config),
                        config.documents or None,
                        is_last=context.retry_number >= _MAX_RETRIES,
                    )
                except IngestError as error:
                    if not _is_retried(context, error):
                        yield from outputs(context, run.report.changed())
                    raise
                yield from outputs(context, run.report.changed())
        except IngestError as error:
            _retry_or_fail(error)
        _fail_unless_complete(settings.corpus, outcome)

    return ingest


def _report_only(
    context: dg.AssetExecutionContext, names: DagsterNames, ingest_context: IngestContext
) -> Iterator[DagsterEvent]:
    """Materialize `head` as it is, or evaluate the checks of the last publication. Nothing is ingested."""
    if not ingest_context.corpus.exists():
        return
    report = RunReport(context, names, ingest_context)
    if context.selected_asset_keys:
        report.head(again=True)
    if context.selected_asset_check_keys:
        log_checks_of_last_change(context, names, ingest_context)
    yield from outputs(context, report.changed())


def _is_retried(context: dg.AssetExecutionContext, error: IngestError) -> bool:
    return is_repeated(error) and context.retry_number < _MAX_RETRIES


def _retry_or_fail(error: IngestError) -> NoReturn:
    """Let Dagster retry the step after a temporary error, or fail the step."""
    if is_repeated(error):
        raise dg.RetryRequested(max_retries=_MAX_RETRIES, seconds_to_wait=_RETRY_SECONDS) from error
    raise dg.Failure(str(error), allow_retries=False) from error


def _wanted_partitions(context: dg.AssetExecutionContext, config: IngestConfig) -> list[str] | None:
    if context.has_partition_key or context.has_partition_key_range:
        return list(context.partition_keys)
    return config.partitions or None


def _fail_unless_complete(corpus: str, outcome: IngestOutcome) -> None:
    problems = outcome.problems
    if not problems:
        return
    raise dg.Failure(
        f"{counted(len(problems), 'document')} of corpus {corpus!r} could not be ingested; "
        f"{counted(outcome.published, 'was', 'were')} published. {_first(problems)}"
        if outcome.failed
        else str(problems[0].error),
        metadata={
            "failed": _table(problems),
            "problems": dg.MetadataValue.int(len(problems)),
            "published": dg.MetadataValue.int(outcome.published),
        },
        allow_retries=False,
    )


def _first(problems: Sequence[Problem]) -> str:
    more = len(problems) - 1
    return f"{problems[0].error}" + (f" `ingest-pipeline status` lists {more:,} more." if more else "")


def _table(problems: Sequence[Problem]) -> dg.TableMetadataValue:
    rows = [
        {"partition": problem.partition, "document": problem.document or "", "problem": str(problem.error)}
        for problem in problems[:_MAX_ROWS]
    ]
    return table(dict.fromkeys(("partition", "document", "problem"), "string"), rows)
