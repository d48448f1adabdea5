"""Who turns text into vectors."""

import hashlib
import os

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.embedding.base import Embedder, OpenAISettings
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbedder
from ingest_pipeline.types import split_embedding


class OpenAIEmbedderResource(ConfigurableResource[None]):
    """An OpenAI-compatible embeddings API or the local model, which runs in the process that embeds.

    Key and endpoint come from OPENAI_API_KEY and OPENAI_BASE_URL, so that a run's configuration contains no key. The
    local model ignores OPENAI_BASE_URL, which other corpora of the same process may need. With a `base_url`, a model of
    its name is requested from that endpoint.
    """

    model: str = Field(default=LOCAL_MODEL, description="Name of the embedding model.")
    dimensions: int = Field(default=LOCAL_DIMENSIONS, description="Width of its vectors.")
    base_url: str | None = Field(default=None, description="Endpoint, instead of OPENAI_BASE_URL.")
    api_key: str | None = Field(default=None, description="Key, instead of OPENAI_API_KEY; give it as an EnvVar.")
    concurrency: int = Field(default=16, description="Requests under way at once, in one run.")
    batch_inputs: int = Field(default=128, description="Texts in one request, at most.")
    timeout: float = Field(default=60.0, description="Seconds to wait for one answer.")
    max_retries: int = Field(default=6, description="Tries after the first, with growing pauses.")

    @property
    def is_local(self) -> bool:
        """Whether the local model is used, which is free."""
        return self.model == LOCAL_MODEL and not self.base_url

    @property
    def fingerprint(self) -> str:
        """Equal for equal settings, key and endpoint included: after a failure, other ones are worth another try."""
        where = self.base_url or os.environ.get("OPENAI_BASE_URL") or ""
        key = self.api_key or os.environ.get("OPENAI_API_KEY") or ""
        known = (self.model, self.dimensions, where, key, self.concurrency, self.batch_inputs, self.timeout)
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def create_embedder(self, embedding: str | None = None) -> Embedder:
        """An embedder, to be used as an async context manager.

        Args:
            embedding: Model and dimensions of a corpus' vectors, if they may differ from these settings: a corpus
                keeps its model until it is re-embedded. Both models must be served by the same endpoint. The local
                model needs no endpoint.

        Raises:
            MissingExtraError: The local model is used and not installed.
            EmbeddingAccessError: There is neither a key nor an endpoint that may need none.
        """
        settings = self.api_settings(embedding)
        if self.is_local if settings.model == self.model else settings.model == LOCAL_MODEL:
            return LocalEmbedder(settings)
        from ingest_pipeline.embedding.openai import OpenAIEmbedder  # noqa: PLC0415  the local model needs no client

        return OpenAIEmbedder(settings)

    def api_settings(self, embedding: str | None = None) -> OpenAISettings:
        """Settings of the API, for a corpus' model and dimensions if they are given."""
        model, dimensions = split_embedding(embedding) if embedding else (self.model, self.dimensions)
        return OpenAISettings(
            model,
            dimensions,
            base_url=self.base_url,
            api_key=self.api_key,
            concurrency=self.concurrency,
            batch_inputs=self.batch_inputs,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
