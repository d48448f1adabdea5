"""The upstream sensor: one run over everything that differs, as soon as an asset that makes files was materialized.

Automation conditions of Dagster request existing partitions, one by one. The new files of an asset upstream have no
partition yet, and one run is enough for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.due_documents import DueDocuments, compare_source
from ingest_pipeline.orchestration.run_requests import partitions_in_progress, shared_run
from ingest_pipeline.orchestration.ticks import Tick, corpus_sensor, last_materialization
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.planning.source_comparison import Limits, Planner
from ingest_pipeline.reporting.partitions import corpus_partitions
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import counted

_MAX_SECONDS = 20.0
_PAGE_DOCUMENTS = 1000


def upstream_sensor(settings: CorpusConfig, upstream: Sequence[dg.AssetKey]) -> dg.SensorDefinition:
    """Requests one run when an asset upstream was materialized and files differ.

    Args:
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
    """
    names = DagsterNames.of(settings)
    definition = corpus_partitions(names, settings.scheme)

    @corpus_sensor(
        settings,
        "upstream_sensor",
        "Requests one run over all documents that differ, when an asset upstream was materialized.",
        seconds=5,
    )
    def watch_upstream(context: dg.SensorEvaluationContext) -> Tick:
        newest = last_materialization(context.instance, upstream)
        if newest <= int(context.cursor or 0):
            return dg.SkipReason("No asset upstream was materialized since the source was last compared.")
        # The run may have listed the source before the files were written. The cursor stays, so the next tick looks
        # again. A run that materializes the files and the corpus together leaves nothing to request.
        count, _ = partitions_in_progress(context.instance, names, definition)
        if count:
            return dg.SkipReason(
                f"{counted(count, 'run is', 'runs are')} in progress. The source is compared when they have ended."
            )

        def compare(ingest_context: IngestContext) -> Tick:
            differs = _differs(ingest_context)
            context.update_cursor(str(newest))
            if not differs:
                return dg.SkipReason("An asset upstream was materialized, but no document differs from the source.")
            request = shared_run(names.step, [], skip_backed_off=True, release_holds=False, withhold_recipe=True)
            return dg.SensorResult(run_requests=[request])

        return compare_source(context, settings, upstream, compare)

    return watch_upstream


def _differs(ingest_context: IngestContext) -> bool:
    """Whether a run over everything has something to do, or that cannot be decided within the time of a tick."""
    ends = monotonic() + _MAX_SECONDS
    due = DueDocuments(ingest_context)
    for page in Planner(ingest_context).pages(Limits(_PAGE_DOCUMENTS, _MAX_SECONDS)):
        if page.removals or due.of(page.puts):
            return True
        if monotonic() > ends:
            return True
    return False
