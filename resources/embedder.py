"""Who turns text into vectors."""

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from dagster import ConfigurableResource
from pydantic import Field

from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbeddingServer
from ingest_pipeline.embedding.openai import EmbeddingSettings
from ingest_pipeline.types import split_embedding

LOCAL_SERVER = "INGEST_LOCAL_EMBEDDINGS"
"""Variable that names a server of the local model which runs already, for the processes of one program to share."""


class OpenAIEmbedderResource(ConfigurableResource[None]):
    """An OpenAI-compatible embeddings API; or, for the local model, a server that runs as long as it is used.

    Key and endpoint come from OPENAI_API_KEY and OPENAI_BASE_URL, so that no key stands in a run's configuration. The
    local model is asked of no such endpoint, since other corpora of the process may need it; only of a `base_url`.
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
        """The model that this package brings is used, and nothing is paid."""
        return self.model == LOCAL_MODEL and not self.base_url

    @property
    def fingerprint(self) -> str:
        """Equal for equal settings, key and endpoint included: after a failure, other ones are worth another try."""
        where = self.base_url or os.environ.get("OPENAI_BASE_URL") or ""
        key = self.api_key or os.environ.get("OPENAI_API_KEY") or ""
        known = (self.model, self.dimensions, where, key, self.concurrency, self.batch_inputs, self.timeout)
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    @contextmanager
    def endpoint(self, embedding: str | None = None) -> Generator[EmbeddingSettings]:
        """Settings of an endpoint that answers, for the time of the block.

        Args:
            embedding: Model and dimensions of what a corpus holds, if they may be others than these: it keeps them
                until a migration is done, and is asked of the same endpoint. The local model needs none.

        Raises:
            MissingExtraError: The local model is wanted and not installed.
        """
        model, dimensions = split_embedding(embedding) if embedding else (self.model, self.dimensions)
        local = self.is_local if model == self.model else model == LOCAL_MODEL
        if not local:
            yield self._settings(model, dimensions, self.base_url, self.api_key)
            return
        if shared := os.environ.get(LOCAL_SERVER):
            yield replace(self._settings(model, dimensions, shared, "local"), is_free=True)
            return
        with LocalEmbeddingServer() as server:
            yield replace(self._settings(model, dimensions, server.base_url, "local"), is_free=True)

    def _settings(self, model: str, dimensions: int, base_url: str | None, api_key: str | None) -> EmbeddingSettings:
        return EmbeddingSettings(
            model,
            dimensions,
            base_url=base_url,
            api_key=api_key,
            concurrency=self.concurrency,
            batch_inputs=self.batch_inputs,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
