"""The embedder of a corpus as a resource: an API, the local model, or the user's own."""

import hashlib
import os
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.embedding.base import EmbeddingClient, OpenAISettings
from ingest_pipeline.embedding.create import create_embedder, for_embedding
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, is_local
from ingest_pipeline.embedding.prompts import Prompts, configured_prompt, prompts_of
from ingest_pipeline.embedding.user_embedder import find_embedder


class OpenAIEmbedderResource(ConfigurableResource[None]):
    """An OpenAI-compatible embeddings API, the local model, or an embedder of the user.

    Key and endpoint come from OPENAI_API_KEY and OPENAI_BASE_URL, so that a run's configuration contains no key. The
    local model ignores OPENAI_BASE_URL, which other corpora of the same process may need. If `base_url` is set, that
    endpoint must serve the model, even if its name is that of the local one.
    """

    model: str = Field(default=LOCAL_MODEL, description="Name of the embedding model.")
    dimensions: int = Field(default=LOCAL_DIMENSIONS, description="Width of its vectors.")
    embedder: str | None = Field(
        default=None,
        description="The user's own embedder, which replaces model and dimensions: the dotted path of a class that "
        "takes no arguments, or what `build_resources` sets.",
    )
    base_url: str | None = Field(default=None, description="Endpoint, instead of OPENAI_BASE_URL.")
    api_key: str | None = Field(default=None, description="Key, instead of OPENAI_API_KEY; give it as an EnvVar.")
    query_prefix: str | None = Field(default=None, description="Precedes each question, if not as the model documents.")
    query_fields: dict[str, Any] | None = Field(
        default=None, description="Further fields of a request for a question, if not as the model documents."
    )
    document_prefix: str | None = Field(
        default=None, description="Precedes each text of a document, if not as the model documents."
    )
    document_fields: dict[str, Any] | None = Field(
        default=None, description="Further fields of a request for documents, if not as the model documents."
    )
    concurrency: int = Field(default=16, description="Requests in flight at once, in one run.")
    batch_inputs: int = Field(default=128, description="Texts in one request, at most.")
    padded_tokens: int | None = Field(
        default=None,
        description="Tokens in one request at most, if each text is padded to the longest one, as a GPU does. Texts "
        "are then sorted by length.",
    )
    timeout: float = Field(default=60.0, description="Seconds to wait for an answer.")
    max_retries: int = Field(default=6, description="Retries of a request, with growing pauses.")

    @property
    def is_local(self) -> bool:
        """Whether the local model is used, which costs nothing."""
        return is_local(self.model, self.base_url)

    @property
    def fingerprint(self) -> str:
        """A hash of the settings with key and endpoint. If it changes after a failure, another run is worth trying."""
        where = self.base_url or os.environ.get("OPENAI_BASE_URL") or ""
        key = self.api_key or os.environ.get("OPENAI_API_KEY") or ""
        known = (
            self.model,
            self.dimensions,
            self.embedder,
            where,
            key,
            self.concurrency,
            self.batch_inputs,
            self.padded_tokens,
            self.timeout,
        )
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def create_embedder(self, embedding: str | None = None) -> EmbeddingClient:
        """Create an embedder, to be used as an async context manager.

        Args:
            embedding: Model and dimensions of a corpus' vectors, if they may differ from these settings.

        Raises:
            ConfigurationError: An embedder of the user is not found, or the vectors are of another one.
            MissingExtraError: The local model is used and not installed.
            EmbeddingAccessError: There is no key, and no endpoint is configured that might not need one.
        """
        return create_embedder(self.api_settings(), embedding)

    def api_settings(self, embedding: str | None = None) -> OpenAISettings:
        """Settings of the API, for a corpus' model and dimensions if they are given."""
        embedder = find_embedder(self.embedder) if self.embedder else None
        model, dimensions = (embedder.model, embedder.dimensions) if embedder else (self.model, self.dimensions)
        known = prompts_of(model)
        configured = OpenAISettings(
            model,
            dimensions,
            base_url=self.base_url,
            api_key=self.api_key,
            concurrency=self.concurrency,
            batch_inputs=self.batch_inputs,
            padded_tokens=self.padded_tokens,
            timeout=self.timeout,
            max_retries=self.max_retries,
            prompts=Prompts(
                configured_prompt(known.query, self.query_prefix, self.query_fields),
                configured_prompt(known.document, self.document_prefix, self.document_fields),
            ),
            embedder=embedder,
        )
        return for_embedding(configured, embedding)
