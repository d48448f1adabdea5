"""What all sensors of a corpus have in common: their declaration, and when a tick is skipped instead of failing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.errors import SourceMissingError, StaleError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames

Tick = dg.SensorResult | dg.SkipReason


def corpus_sensor(
    settings: CorpusConfig,
    name: str,
    description: str,
    *,
    seconds: int,
    needs: Collection[type[dg.ConfigurableResource[Any]]] = (VersionedLanceDBResource, OpenAIEmbedderResource),
    job: str | None = None,
    running: bool = True,
) -> Callable[[Callable[[dg.SensorEvaluationContext], Tick]], dg.SensorDefinition]:
    """Make a sensor of a corpus from the function that evaluates a tick.

    Args:
        settings: Settings of the corpus.
        name: Name of the sensor within the corpus.
        description: Its description in Dagster.
        seconds: Least seconds between two ticks.
        needs: The resources that a tick uses. A tick fails if one of them lacks a variable, such as the API key.
        job: Name of the job that it requests runs of. None: the job that ingests.
        running: Whether the sensor is on by default.
    """
    names = DagsterNames.of(settings)
    return dg.sensor(
        name=names.name(name),
        description=description,
        job_name=job or names.ingest_job,
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        required_resource_keys={resource_key(names, kind) for kind in needs},
    )


def with_corpus(
    context: dg.SensorEvaluationContext,
    settings: CorpusConfig,
    upstream: Sequence[dg.AssetKey],
    tick: Callable[[IngestContext], Tick],
) -> Tick:
    """Evaluate a tick, but skip it while other processes change the corpus, or before its first files are made.

    Args:
        context: Dagster's context of the tick.
        settings: Settings of the corpus.
        upstream: The assets that make the files of the source.
        tick: Gets the open corpus, and returns the result of the tick.

    Raises:
        IngestError: The infrastructure is broken, so the tick fails.
    """
    lancedb = resource_of(context.resources, DagsterNames.of(settings), VersionedLanceDBResource)
    try:
        with lancedb.ingest_context(settings, create=False) as ingest_context:
            return tick(ingest_context)
    except StaleError as error:
        return dg.SkipReason(str(error))
    except SourceMissingError as error:
        if not upstream or last_materialization(context.instance, upstream):
            raise
        makers = ", ".join(key.to_user_string() for key in upstream)
        return dg.SkipReason(f"{error.message}, because {makers} was not materialized yet.")


def last_materialization(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> int:
    """The position in the event log of the last materialization of any of the assets; 0 if there is none."""
    records = instance.get_asset_records(list(assets))
    return max((record.asset_entry.last_materialization_storage_id or 0 for record in records), default=0)
