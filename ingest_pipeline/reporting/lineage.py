"""Column lineage, which Dagster draws: from a file to its chunks, and from a chunk to its vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from ingest_pipeline.resources.names import DagsterNames

# By column: the column that it is made from. A file has a key and a content, whichever asset makes it.
_FROM_FILES = {
    "id": "content",
    "document": "key",
    "ordinal": "content",
    "start_offset": "content",
    "end_offset": "content",
    "text": "content",
    "text_hash": "content",
}
_FROM_CHUNKS = {"id": "id", "vector": "text"}


def lineage(
    names: DagsterNames, asset: str, upstream: Sequence[dg.AssetKey] = ()
) -> Mapping[str, dg.TableColumnLineageMetadataValue]:
    """The column lineage of an asset, as metadata. Empty: Dagster knows nothing that the columns are made from.

    Dagster draws that of the latest materialization.

    Args:
        names: Names of the corpus in Dagster.
        asset: Name of the asset.
        upstream: Assets that make the files of the source.
    """
    columns, made_from = {
        "chunks": (_FROM_FILES, upstream),
        "embeddings": (_FROM_CHUNKS, [names.key("chunks")]),
    }.get(asset, ({}, ()))
    deps = {
        column: [dg.TableColumnDep(asset_key=key, column_name=original) for key in made_from]
        for column, original in columns.items()
    }
    if not any(deps.values()):
        return {}
    return {"dagster/column_lineage": dg.MetadataValue.column_lineage(dg.TableColumnLineage(deps))}
