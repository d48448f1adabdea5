"""The asset `metadata`: the Postgres catalog's rows of each document."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.reporting.data_versions import code_versions
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import Recipe

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("key", "text", "Path under the source prefix."),
        dg.TableColumn("partition", "text", "The document's partition in Dagster."),
        dg.TableColumn("saga", "uuid", "The publication that wrote the row."),
        dg.TableColumn("etag", "text", "ETag of the object that was read."),
        dg.TableColumn("size", "bigint", "Bytes."),
        dg.TableColumn("content_hash", "text", "SHA-256 of the bytes."),
        dg.TableColumn("recipe", "text", "Fingerprint of parser, chunker and model."),
        dg.TableColumn("chunk_count", "integer", "Chunks, and vectors, of the document."),
        dg.TableColumn("published_version", "bigint", "First Lance version that shows the row."),
    ]
)


def metadata_spec(names: DagsterNames, recipe: Recipe) -> dg.AssetSpec:
    """The spec of the asset, which the UI shows before the first materialization."""
    return dg.AssetSpec(
        names.key("metadata"),
        deps=[names.key("embeddings")],
        description="Documents and chunks in Postgres, published together with the vectors.",
        skippable=True,
        kinds={"postgres", "table"},
        code_version=code_versions(recipe)["metadata"],
        metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "ingest_pipeline.document"},
    )


def metadata_metadata(publication: Publication, document: PreparedDocument) -> Mapping[str, dg.MetadataValue]:
    """Metadata of a partition that is one document."""
    source = document.plan.source
    assert source is not None  # noqa: S101  a removal is not among the documents
    row: dict[str, str | int | float | bool | None] = {
        "key": source.key,
        "etag": source.etag,
        "bytes": source.size,
        "last_modified": source.last_modified.isoformat(timespec="seconds"),
        "characters": document.characters,
        "chunks": document.chunks,
    }
    return {
        "document": dg.MetadataValue.table([dg.TableRecord(row)]),
        "saga": dg.MetadataValue.text(str(publication.saga)),
        "head": dg.MetadataValue.int(publication.version),
        "size_bytes": dg.MetadataValue.int(source.size),
    }
