"""What Dagster compares to tell whether a partition is stale: the version of the code that made it, and of the data."""

from __future__ import annotations

from collections.abc import Mapping

from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG

from ingest_pipeline.model import Recipe


def code_versions(recipe: Recipe) -> Mapping[str, str]:
    """By asset: the part of the recipe that the asset depends on."""
    return {
        "chunks": f"{recipe.parser} {recipe.chunker} {recipe.chunk_size}/{recipe.chunk_overlap}",
        "embeddings": f"{recipe.embedding_model} {recipe.embedding_dimensions}",
        "metadata": "1",
    }


def version_tags(asset: str, data_version: str, recipe: Recipe) -> dict[str, str]:
    """Tags for the materialization of a partition that was made by a recipe.

    Dagster adds them to what a step returns, but not to what it logs. While a corpus is kept with another model than
    the definitions name, they say so, and the partition shows as stale.
    """
    return {
        DATA_VERSION_TAG: data_version,
        CODE_VERSION_TAG: code_versions(recipe)[asset],
    }
