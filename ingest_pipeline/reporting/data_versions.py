"""Code versions and data versions, by which Dagster decides whether a partition is stale."""

from __future__ import annotations

from collections.abc import Mapping

from dagster import AssetKey

# Dagster writes these tags itself for the outputs of a step. For logged events there is no public API.
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from ingest_pipeline.types import Recipe

_MADE_FROM = {"embeddings": "chunks", "metadata": "embeddings"}


def code_versions(recipe: Recipe) -> Mapping[str, str]:
    """By asset: the part of the recipe that the asset depends on.

    A parser of the user is not in it. It concerns the documents of its suffixes alone, and Dagster would show all
    partitions as stale. The plan finds those documents.
    """
    encoding = f" {recipe.encoding}" if recipe.encoding else ""
    prompt = f" {recipe.prompt}" if recipe.prompt else ""
    hooks = "".join(f" {hook}" for hook in recipe.hooks)
    headings = " heading context" if recipe.heading_context else ""
    return {
        "chunks": f"{recipe.parser} {recipe.chunker} {recipe.chunk_size}/{recipe.chunk_overlap}{encoding}{hooks}",
        "embeddings": f"{recipe.embedding_model} {recipe.embedding_dimensions}{prompt}{headings}",
        "metadata": "1",
    }


def version_tags(corpus: str, asset: str, data_version: str, recipe: Recipe) -> dict[str, str]:
    """Tags for the materialization of a partition that was made by a recipe.

    Dagster adds them to the outputs of a step, but not to logged events. As long as a corpus keeps another model than
    the definitions name, the tags record the corpus' model, so Dagster shows the partition as stale. The three assets
    are materialized together, so each records the same data version for the asset upstream.
    """
    tags = {
        DATA_VERSION_TAG: data_version,
        CODE_VERSION_TAG: code_versions(recipe)[asset],
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    if asset in _MADE_FROM:
        source = AssetKey([corpus, _MADE_FROM[asset]])
        tags[get_input_data_version_tag(source)] = data_version
        tags[get_input_event_pointer_tag(source)] = NULL_EVENT_POINTER
    return tags
