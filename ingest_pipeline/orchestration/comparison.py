"""What the sensors that compare the source with head have in common: the open corpus, and when they leave it alone."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from ingest_pipeline.assets.ingest_run import run_configuration
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import StaleError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.run_backoff import waiting_backoff
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames


def comparison_resources(names: DagsterNames) -> set[str]:
    """Keys of the resources that `compare_source` needs."""
    return {resource_key(names, kind) for kind in (VersionedLanceDBResource, OpenAIEmbedderResource)}


def compare_source(
    context: dg.SensorEvaluationContext,
    settings: CorpusConfig,
    compare: Callable[[IngestContext], dg.SensorResult | dg.SkipReason],
) -> dg.SensorResult | dg.SkipReason:
    """Compare with the open corpus, unless its runs are in backoff or other processes change it.

    Args:
        context: Dagster's context of the tick.
        settings: Settings of the corpus.
        compare: Gets the open corpus, and returns the result of the tick.

    Raises:
        IngestError: The infrastructure is broken, so the tick fails.
    """
    names = DagsterNames.of(settings)
    lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
    embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
    try:
        with lancedb.ingest_context(settings, create=False) as ingest_context:
            backoff = waiting_backoff(ingest_context.corpus, run_configuration(ingest_context, embedder))
            return compare(ingest_context) if backoff is None else dg.SkipReason(backoff.note)
    except StaleError as error:
        return dg.SkipReason(str(error))
