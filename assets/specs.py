"""The specs of a corpus' four assets, with what the user says about how they appear in Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ingest_pipeline.assets.chunks import chunks_spec
from ingest_pipeline.assets.embeddings import embeddings_spec
from ingest_pipeline.assets.head import head_spec
from ingest_pipeline.assets.metadata import metadata_spec
from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.embedding.local import is_local
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.reporting.partitions import corpus_partitions
from ingest_pipeline.resources.names import DagsterNames


@dataclass(frozen=True, slots=True)
class AssetOptions:
    """How the assets of a corpus appear in Dagster."""

    group: str
    upstream: Sequence[dg.AssetKey] = ()
    """Assets that make the files of the source."""
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    fresh_within_minutes: int | None = None
    translation: Callable[[dg.AssetSpec, str], dg.AssetSpec] | None = None
    """Changes a spec. It also receives the last part of the asset's key."""


def corpus_specs(settings: CorpusConfig, options: AssetOptions) -> list[dg.AssetSpec]:
    """The specs of chunks, embeddings, metadata and head.

    Raises:
        ConfigurationError: The translation changes the key of an asset.
    """
    names, recipe = DagsterNames.of(settings), settings.recipe
    partitions = corpus_partitions(names, settings.scheme)
    trio = (
        chunks_spec(names, recipe, options.upstream),
        embeddings_spec(names, recipe, settings.table_uri, _embedder_kind(settings)),
        metadata_spec(names, recipe),
    )
    specs = [
        *(spec.replace_attributes(partitions_def=partitions) for spec in trio),
        head_spec(names, settings.table_uri, options.fresh_within_minutes),
    ]
    return [_translated(spec, options) for spec in specs]


def _embedder_kind(settings: CorpusConfig) -> str:
    """What Dagster shows as the kind of the embedder: a user's own class, the local model, or OpenAI's protocol."""
    if settings.user_embedder is not None:
        return "python"
    return "wordllama" if is_local(settings.embedding_model, settings.embedding_base_url) else "openai"


def _translated(spec: dg.AssetSpec, options: AssetOptions) -> dg.AssetSpec:
    described = spec.replace_attributes(group_name=options.group, owners=options.owners).merge_attributes(
        tags=options.tags
    )
    if options.translation is None:
        return described
    translated = options.translation(described, spec.key.path[-1])
    if translated.key != spec.key:
        raise ConfigurationError(
            f"The translation changes the asset key {spec.key.to_user_string()!r} to "
            f"{translated.key.to_user_string()!r}. Runs, sensors and the command line would report to the old key",
            "Remove the key from the translation, and set the option key_prefix of the corpus.",
        )
    return translated
