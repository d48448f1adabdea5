"""The asset `embeddings`: a vector for each chunk, in a LanceDB table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from ingest_pipeline.model import Recipe
from ingest_pipeline.publication_view import DocumentView

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "string", "Id of the chunk."),
        dg.TableColumn("vector", "fixed_size_list<float32>", "The embedding of the chunk's text."),
        dg.TableColumn("saga", "uuid", "The publication that brought the row."),
    ]
)


def embeddings_spec(corpus: str, recipe: Recipe, table_uri: str, owners: Sequence[str]) -> dg.AssetSpec:
    """What the UI says of the asset before it is made."""
    return dg.AssetSpec(
        [corpus, "embeddings"],
        deps=[dg.AssetKey([corpus, "chunks"])],
        description="One vector per chunk. Readers open the table at the version that Postgres names as head.",
        skippable=True,
        group_name=corpus,
        kinds={"openai", "lancedb"},
        owners=owners,
        code_version=f"{recipe.embedding_model} {recipe.embedding_dimensions}",
        metadata={
            "dagster/column_schema": _COLUMNS,
            "dagster/table_name": corpus,
            "dagster/uri": table_uri,
            "model": recipe.embedding_model,
            "dimensions": recipe.embedding_dimensions,
        },
    )


def embeddings_metadata(view: DocumentView, recipe: Recipe) -> Mapping[str, dg.MetadataValue]:
    """What the UI shows of one partition. What one request did for several documents is told of the publication."""
    publication = view.publication
    return {
        "bought": dg.MetadataValue.int(view.bought),
        "reused": dg.MetadataValue.int(view.reused),
        "model": dg.MetadataValue.text(recipe.embedding_model),
        "dimensions": dg.MetadataValue.int(recipe.embedding_dimensions),
        "publication_requests": dg.MetadataValue.int(publication.requests),
        "publication_tokens": dg.MetadataValue.int(publication.tokens),
        "publication_seconds": dg.MetadataValue.float(round(publication.seconds, 3)),
        "lance_version_before": dg.MetadataValue.int(publication.base_version),
        "lance_version_after": dg.MetadataValue.int(publication.version),
    }
