"""The asset `head`: the corpus as a whole, for assets that read it."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from ingest_pipeline.reporting.data_versions import HEAD_CODE_VERSION
from ingest_pipeline.resources.keys import head_inputs_key
from ingest_pipeline.resources.names import HEAD, DagsterNames


def head_spec(names: DagsterNames, table_uri: str, fresh_within_minutes: int | None) -> dg.AssetSpec:
    """The spec of the asset, which the UI shows before the first materialization."""
    window = None if fresh_within_minutes is None else timedelta(minutes=fresh_within_minutes)
    spec = dg.AssetSpec(
        names.key(HEAD),
        deps=[names.key("metadata")],
        description="The published version of the whole corpus. It has no partitions: an asset that depends on it runs "
        "once for each change, however many documents changed. Documents that fail or cannot be read do not delay it.",
        skippable=True,
        kinds={"lancedb", "postgres"},
        code_version=HEAD_CODE_VERSION,
        freshness_policy=None if window is None else dg.FreshnessPolicy.time_window(window),
        metadata={"dagster/table_name": names.corpus, "dagster/uri": table_uri},
    )
    return spec.with_io_manager_key(head_inputs_key(names))
