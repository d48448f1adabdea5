"""Code versions and data versions, by which Dagster decides whether a partition is stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from dagster import AssetKey, AssetRecordsFilter, DagsterInstance

# Dagster writes these tags itself for the outputs of a step. For logged events there is no public API.
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from ingest_pipeline.resources.names import DagsterNames
from ingest_pipeline.types import Recipe

_MADE_FROM = {"embeddings": "chunks", "metadata": "embeddings"}
HEAD_CODE_VERSION = "1"


def code_versions(recipe: Recipe) -> Mapping[str, str]:
    """By asset: the part of the recipe that the asset depends on.

    A parser of the user is not in it. It concerns the documents of its suffixes alone, and Dagster would show all
    partitions as stale. The plan finds those documents.
    """
    encoding = f" {recipe.encoding}" if recipe.encoding else ""
    prompt = f" {recipe.prompt}" if recipe.prompt else ""
    own = f" chunker {recipe.user_chunker}" if recipe.user_chunker else ""
    own += "".join(f" enricher {fingerprint}" for fingerprint in recipe.enrichers)
    headings = " heading context" if recipe.heading_context else ""
    size = f"{recipe.chunk_size}/{recipe.chunk_overlap} {recipe.chunk_unit}"
    limit = f" {recipe.tokenizer}/{recipe.max_tokens}" if recipe.tokenizer else ""
    return {
        "chunks": f"{recipe.parser} {recipe.chunker} {size}{limit}{encoding}{own}",
        "embeddings": f"{recipe.embedding_model} {recipe.embedding_dimensions}{prompt}{headings}",
        "metadata": "1",
    }


def version_tags(
    names: DagsterNames, asset: str, data_version: str, recipe: Recipe, inputs: Mapping[AssetKey, str] | None = None
) -> dict[str, str]:
    """Tags for the materialization of a partition that was made by a recipe.

    Dagster adds them to the outputs of a step, but not to logged events. As long as a corpus keeps another model than
    the definitions name, the tags record the corpus' model, so Dagster shows the partition as stale. The three assets
    are materialized together, so each records the same data version for the asset upstream.

    Args:
        names: Names of the corpus in Dagster.
        asset: Name of the asset.
        data_version: The data version of the partition.
        recipe: The recipe that made it.
        inputs: Data versions of the assets of other makers that this asset depends on.
    """
    tags = {
        DATA_VERSION_TAG: data_version,
        CODE_VERSION_TAG: code_versions(recipe)[asset],
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    if asset in _MADE_FROM:
        tags |= _input_tags(names.key(_MADE_FROM[asset]), data_version)
    for key, version in (inputs or {}).items():
        tags |= _input_tags(key, version)
    return tags


def head_tags(names: DagsterNames, data_version: str) -> dict[str, str]:
    """Tags for a materialization of `head`, which Dagster never compares with what it was made from."""
    return {
        DATA_VERSION_TAG: data_version,
        CODE_VERSION_TAG: HEAD_CODE_VERSION,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        **_input_tags(names.key("metadata"), data_version),
    }


def input_versions(
    instance: DagsterInstance, keys: Iterable[AssetKey], before: datetime | None = None
) -> Mapping[AssetKey, str]:
    """The data versions of assets that make files.

    Args:
        instance: Dagster's instance.
        keys: The assets.
        before: When the files were read, at the latest. None: now.
    """
    return {key: _data_version(instance, key, before) for key in keys}


def _data_version(instance: DagsterInstance, key: AssetKey, before: datetime | None) -> str:
    record = None
    if before is not None:
        wanted = AssetRecordsFilter(asset_key=key, before_timestamp=before.timestamp())
        record = next(iter(instance.fetch_materializations(wanted, limit=1).records), None)
    record = record or instance.get_latest_data_version_record(key)
    version = None if record is None else extract_data_version_from_entry(record.event_log_entry)
    return (version or DEFAULT_DATA_VERSION).value


def _input_tags(key: AssetKey, version: str) -> dict[str, str]:
    # Without a pointer, Dagster compares no partitions of the input.
    return {get_input_data_version_tag(key): version, get_input_event_pointer_tag(key): NULL_EVENT_POINTER}
