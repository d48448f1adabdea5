"""What all ticks have in common: when they are skipped instead of failing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dagster as dg

from ingest_pipeline.errors import SourceMissingError, StaleError

Tick = dg.SensorResult | dg.SkipReason


def evaluate(instance: dg.DagsterInstance, upstream: Sequence[dg.AssetKey], tick: Callable[[], Tick]) -> Tick:
    """Evaluate a tick, but skip it while other processes change the corpus, or before its first files are made.

    Args:
        instance: Dagster's instance.
        upstream: The assets that make the files of the source.
        tick: Returns the result of the tick.

    Raises:
        IngestError: The infrastructure is broken, so the tick fails.
    """
    try:
        return tick()
    except StaleError as error:
        return dg.SkipReason(str(error))
    except SourceMissingError as error:
        if not upstream or last_materialization(instance, upstream):
            raise
        makers = ", ".join(key.to_user_string() for key in upstream)
        return dg.SkipReason(f"{error.message}, because {makers} was not materialized yet.")


def last_materialization(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> int:
    """The position in the event log of the last materialization of any of the assets; 0 if there is none."""
    records = instance.get_asset_records(list(assets))
    return max((record.asset_entry.last_materialization_storage_id or 0 for record in records), default=0)
