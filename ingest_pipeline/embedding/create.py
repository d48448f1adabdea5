"""Choosing the embedder for a model: the local model in this process, or the client of an API."""

from __future__ import annotations

from dataclasses import replace

from ingest_pipeline.embedding.base import Embedder, OpenAISettings
from ingest_pipeline.embedding.local import LocalEmbedder, is_local
from ingest_pipeline.embedding.prompts import prompts_of_vectors
from ingest_pipeline.types import split_embedding


def create_embedder(configured: OpenAISettings, embedding: str | None = None) -> Embedder:
    """Create an embedder, to be used as an async context manager.

    Args:
        configured: Settings of the configured model.
        embedding: Model and dimensions of a corpus' vectors, if they may differ from the configured ones: a corpus
            keeps its model until it is re-embedded. Both models must be served by the same endpoint. The local model
            needs no endpoint.

    Raises:
        MissingExtraError: The local model is used and not installed.
        EmbeddingAccessError: There is neither a key nor an endpoint that may need none.
    """
    settings = for_embedding(configured, embedding)
    if _is_local(configured, settings.model):
        return LocalEmbedder(settings)
    from ingest_pipeline.embedding.openai import OpenAIEmbedder  # noqa: PLC0415  the local model needs no client

    return OpenAIEmbedder(settings)


def embeds_for_free(configured: OpenAISettings, embedding: str | None = None) -> bool:
    """Whether the embedder that `create_embedder` creates bills nothing. Creates none and imports no client."""
    return _is_local(configured, for_embedding(configured, embedding).model) and LocalEmbedder.is_free


def _is_local(configured: OpenAISettings, model: str) -> bool:
    """Of two models, the endpoint serves the configured one. A corpus that has the local one keeps it."""
    return is_local(model, configured.base_url if model == configured.model else None)


def for_embedding(configured: OpenAISettings, embedding: str | None) -> OpenAISettings:
    """The settings with the model, the dimensions and the prompts of a corpus' vectors, if they are given."""
    if embedding is None:
        return configured
    model, dimensions, _ = split_embedding(embedding)
    prompts = prompts_of_vectors(embedding, configured.prompts if model == configured.model else None)
    return replace(configured, model=model, dimensions=dimensions, prompts=prompts)
