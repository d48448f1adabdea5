"""What the sensors that compare the source with head have in common: the open corpus, and which documents are due."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dagster as dg

from ingest_pipeline.assets.ingest_run import run_configuration
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import RecipeWithheldError
from ingest_pipeline.ingestion.batch.batch_jobs import waiting_keys
from ingest_pipeline.ingestion.recipe_guard import RecipeGuard
from ingest_pipeline.orchestration.ticks import Tick, with_corpus
from ingest_pipeline.planning.backoff import read_retry_backoff
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.planning.run_backoff import waiting_backoff
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_of
from ingest_pipeline.resources.names import DagsterNames


def compare_source(
    context: dg.SensorEvaluationContext,
    settings: CorpusConfig,
    upstream: Sequence[dg.AssetKey],
    compare: Callable[[IngestContext], Tick],
) -> Tick:
    """Compare with the open corpus, unless its runs are in backoff or other processes change it.

    Args:
        context: Dagster's context of the tick.
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
        compare: Gets the open corpus, and returns the result of the tick.

    Raises:
        IngestError: The infrastructure is broken, so the tick fails.
    """
    embedder = resource_of(context.resources, DagsterNames.of(settings), OpenAIEmbedderResource)

    def tick(ingest_context: IngestContext) -> Tick:
        backoff = waiting_backoff(ingest_context.corpus, run_configuration(ingest_context, embedder))
        return compare(ingest_context) if backoff is None else dg.SkipReason(backoff.note)

    return with_corpus(context, settings, upstream, tick)


class DueDocuments:
    """Decides which of the documents that differ are due, so that a run is worth its start.

    Documents that wait for a retry or for a batch job are not due, nor are those that cannot be read or that only a
    confirmation releases.

    Args:
        ingest_context: The open corpus with its source.
    """

    def __init__(self, ingest_context: IngestContext) -> None:
        self._backoff = read_retry_backoff(ingest_context)
        self._ordered = waiting_keys(ingest_context)
        self._guard = RecipeGuard(ingest_context)
        self._guard.accept()
        self.skipped = 0
        """Documents that are unreadable, failed, or wait for a batch job."""
        self.withheld: RecipeWithheldError | None = None
        """Why documents are withheld that differ by recipe alone, if there are any."""

    @property
    def waits_for_batch_job(self) -> bool:
        """Whether documents wait for a batch job, which a run over everything would embed."""
        return bool(self._ordered)

    def of(self, puts: Sequence[DocumentPlan]) -> list[DocumentPlan]:
        """The documents to ingest now, among those that are new or changed."""
        allowed, withheld = self._guard.split(puts)
        if withheld:
            self.withheld = self._guard.error
        due = [plan for plan in allowed if self._backoff.failure_of(plan) is None and plan.key not in self._ordered]
        self.skipped += len(allowed) - len(due)
        return due
