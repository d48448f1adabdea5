"""The asset `head`: the corpus as a whole, for assets that read it."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from ingest_pipeline.reporting.data_versions import HEAD_CODE_VERSION
from ingest_pipeline.reporting.head import HEAD
from ingest_pipeline.resources.keys import head_inputs_key


def head_spec(corpus: str, table_uri: str, owners: Sequence[str], group: str) -> dg.AssetSpec:
    """The spec of the asset, which the UI shows before the first materialization."""
    spec = dg.AssetSpec(
        [corpus, HEAD],
        deps=[dg.AssetKey([corpus, "metadata"])],
        description="The published version of the whole corpus. It has no partitions: an asset that depends on it runs "
        "once for each change, however many documents changed. Documents that fail or cannot be read do not delay it.",
        skippable=True,
        group_name=group,
        kinds={"lancedb", "postgres"},
        owners=owners,
        code_version=HEAD_CODE_VERSION,
        metadata={"dagster/table_name": corpus, "dagster/uri": table_uri},
    )
    return spec.with_io_manager_key(head_inputs_key(corpus))
