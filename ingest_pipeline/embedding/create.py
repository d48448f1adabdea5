"""Choosing the embedder for a model: the local model in this process, the user's own, or the client of an API."""

from __future__ import annotations

from dataclasses import replace

from ingest_pipeline.embedding.base import EmbeddingClient, OpenAISettings
from ingest_pipeline.embedding.local import LocalEmbedder, is_local
from ingest_pipeline.embedding.prompts import USER_MODEL, prompts_of_vectors
from ingest_pipeline.errors import CorpusMismatchError
from ingest_pipeline.types import split_embedding


def create_embedder(configured: OpenAISettings, embedding: str | None = None) -> EmbeddingClient:
    """Create an embedder, to be used as an async context manager.

    Args:
        configured: Settings of the configured model.
        embedding: Model and dimensions of a corpus' vectors, if they may differ from the configured ones: a corpus
            keeps its model until it is re-embedded. Both models must be served by the same endpoint. The local model
            needs no endpoint.

    Raises:
        CorpusMismatchError: The vectors are of an embedder of the user that is not configured.
        MissingExtraError: The local model is used and not installed.
        EmbeddingAccessError: There is neither a key nor an endpoint that may need none.
    """
    settings = for_embedding(configured, embedding)
    if settings.model.startswith(USER_MODEL):
        return _user_embedder(configured, settings)
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


def _user_embedder(configured: OpenAISettings, settings: OpenAISettings) -> EmbeddingClient:
    embedder = configured.embedder
    if embedder is None or (embedder.model, embedder.dimensions) != (settings.model, settings.dimensions):
        shown = "none" if embedder is None else f"{embedder.model}/{embedder.dimensions}"
        raise CorpusMismatchError(
            f"The vectors of the corpus are of {settings.model}/{settings.dimensions}, and the settings name the "
            f"embedder {shown}. Nothing was embedded",
            "Restore INGEST_EMBEDDER and its fingerprint, or run `ingest-pipeline reembed`.",
        )
    from ingest_pipeline.embedding.user_embedder_client import UserEmbedderClient  # noqa: PLC0415  most need none

    return UserEmbedderClient(embedder, settings)


def for_embedding(configured: OpenAISettings, embedding: str | None) -> OpenAISettings:
    """The settings with the model, the dimensions and the prompts of a corpus' vectors, if they are given."""
    if embedding is None:
        return configured
    model, dimensions, _ = split_embedding(embedding)
    prompts = prompts_of_vectors(embedding, configured.prompts if model == configured.model else None)
    return replace(configured, model=model, dimensions=dimensions, prompts=prompts)
