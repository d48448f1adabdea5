"""The asset `embeddings`: a vector for each chunk, in a LanceDB table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import dagster as dg

from ingest_pipeline.ingestion.summary import Publication
from ingest_pipeline.postgres.catalog.reports import RunProgress
from ingest_pipeline.postgres.ledger.embedding_cache import Cost
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.reporting.data_versions import code_versions
from ingest_pipeline.reporting.lineage import lineage
from ingest_pipeline.reporting.materializations import cost_metadata, usage_metadata
from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import Recipe

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("id", "string", "Id of the chunk."),
        dg.TableColumn("vector", "fixed_size_list<float32>", "The embedding of the chunk's text."),
        dg.TableColumn("saga", "uuid", "The publication that wrote the row."),
    ]
)


def embeddings_spec(names: DagsterNames, recipe: Recipe, table_uri: str, kind: str) -> dg.AssetSpec:
    """The spec of the asset, which the UI shows before the first materialization.

    Args:
        names: Names of the corpus in Dagster.
        recipe: The corpus' recipe.
        table_uri: Where the table is.
        kind: Kind of the embedder.
    """
    return dg.AssetSpec(
        names.key("embeddings"),
        deps=[names.key("chunks")],
        description="One vector per chunk. Readers open the table at the version that Postgres names as head.",
        skippable=True,
        kinds={kind, "lancedb"},
        code_version=code_versions(recipe)["embeddings"],
        metadata={
            "dagster/column_schema": _COLUMNS,
            **lineage(names, "embeddings"),
            "dagster/table_name": names.corpus,
            "dagster/uri": table_uri,
            "model": recipe.embedding_model,
            "dimensions": recipe.embedding_dimensions,
        },
    )


def embeddings_metadata(
    publication: Publication, document: PreparedDocument, recipe: Recipe
) -> Mapping[str, dg.MetadataValue]:
    """Metadata of a partition that is one document. A request may serve several documents of a publication."""
    usage = document.usage
    cost = None if publication.price is None else publication.price.cost(usage.tokens)
    return {
        **usage_metadata(usage),
        **cost_metadata("cost", cost, publication.price.currency if publication.price else None),
        "model": dg.MetadataValue.text(recipe.embedding_model),
        "dimensions": dg.MetadataValue.int(recipe.embedding_dimensions),
        "publication_requests": dg.MetadataValue.int(publication.usage.requests),
        "publication_tokens": dg.MetadataValue.int(publication.usage.tokens),
        "publication_seconds": dg.MetadataValue.float(round(publication.seconds, 3)),
        "lance_version_before": dg.MetadataValue.int(publication.base_version),
        "lance_version_after": dg.MetadataValue.int(publication.version),
    }


def run_metadata(run: RunProgress, costs: Sequence[Cost]) -> Mapping[str, dg.MetadataValue]:
    """Figures of a whole run for the UI to plot, whether the run succeeded or not."""
    found: dict[str, dg.MetadataValue] = {
        **usage_metadata(run.usage, "run_"),
        "run_seconds": dg.MetadataValue.float(round(run.seconds, 3)),
        "run_api_seconds": dg.MetadataValue.float(round(run.api_seconds, 3)),
        "run_documents": dg.MetadataValue.int(run.published),
    }
    if run.enricher_tokens or run.enricher_requests:
        found["run_enricher_tokens"] = dg.MetadataValue.int(run.enricher_tokens)
        found["run_enricher_requests"] = dg.MetadataValue.int(run.enricher_requests)
    for currency in {cost.currency for cost in costs}:
        amounts = [cost.amount for cost in costs if cost.currency == currency and cost.amount is not None]
        found |= cost_metadata("run_cost", sum(amounts, Decimal()) if amounts else None, currency)
    return found
