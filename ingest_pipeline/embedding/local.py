"""The local embedder: a small model that runs in this process, without a key, an endpoint or a download.

The model is wordllama, whose weights are part of its wheel. It averages static token embeddings, so a vector depends on
its own text only, to the last bit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ClassVar, Final, Self

import numpy as np

from ingest_pipeline.embedding.base import EmbeddedBatch, EmbeddingSettings, Purpose
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.errors import ConfigurationError, MissingExtraError
from ingest_pipeline.types import Vectors

if TYPE_CHECKING:
    from wordllama import WordLlamaInference

LOCAL_MODEL: Final = "wordllama-l2-256"
"""Name of the model in settings, recipes and the catalog."""
LOCAL_DIMENSIONS: Final = 256
"""Width of the model. Narrower vectors are its first components: it was trained for that at 64 and 128."""
MAX_INPUT_TOKENS: Final = 8192
"""Tokens in one text, at most: the limit of OpenAI's models, so that a corpus can move to one of them."""
# One thread tokenizes, which needs no GIL, while the other averages.
_MAX_THREADS: Final = 2

_loading = Lock()


def is_local(model: str, base_url: str | None) -> bool:
    """Whether a model is the local one, which is free. A model behind an endpoint is not, whatever its name."""
    return model == LOCAL_MODEL and not base_url


class LocalEmbedder:
    """Embeds with the local model, in threads of its own so that neither the event loop nor its threads are blocked.

    Args:
        settings: Of `LOCAL_MODEL`, or of a corpus that uses it.

    Raises:
        MissingExtraError: wordllama is not installed.
        ConfigurationError: The model has no vectors of this width.
    """

    is_free: ClassVar[bool] = True

    def __init__(self, settings: EmbeddingSettings) -> None:
        if find_spec("wordllama") is None:
            raise MissingExtraError(
                "Embedding without an API needs wordllama, which is not installed",
                "Run pip install 'ingest-pipeline[local]', or set OPENAI_API_KEY or OPENAI_BASE_URL.",
            )
        if not 1 <= settings.dimensions <= LOCAL_DIMENSIONS:
            raise ConfigurationError(
                f"The local model {LOCAL_MODEL!r} has no vectors of {settings.dimensions} dimensions",
                f"Set INGEST_EMBEDDING_DIMENSIONS to at most {LOCAL_DIMENSIONS}.",
            )
        self.settings = settings
        self._slots = asyncio.Semaphore(_MAX_THREADS)
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "local-embedder")

    @property
    def endpoint(self) -> str:
        """The model is served by this process."""
        return "local"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        # Without waiting: a thread that still computes ends by itself within a batch.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def embed(
        self,
        texts: Sequence[str],
        meter: UsageMeter | None = None,
        *,
        purpose: Purpose = "document",  # noqa: ARG002  the model was trained without prompts
    ) -> EmbeddedBatch:
        """Embed one batch. Empty texts and texts of more than `MAX_INPUT_TOKENS` tokens are refused.

        Args:
            texts: In memory at once, so at most one batch, see `pack`.
            meter: Counts the batch as one request, and its tokens.
            purpose: The same for questions and documents.
        """
        meter = meter or UsageMeter()
        async with self._slots:
            meter.restart()
            meter.calls += 1
            meter.requests += 1
            loop = asyncio.get_running_loop()
            vectors, refused, tokens = await loop.run_in_executor(
                self._threads, _encode, texts, self.settings.dimensions
            )
            meter.tokens += tokens
            return EmbeddedBatch(vectors, refused, replace(meter.usage, embedded=len(texts) - len(refused)))


def local_model() -> WordLlamaInference:
    """The model, loaded by the first call and shared by all threads of the process."""
    with _loading:
        return _load()


@cache
def _load() -> WordLlamaInference:
    # Importing wordllama configures the root logger of the whole process, unless that has a handler already.
    quiet = logging.NullHandler()
    logging.getLogger().addHandler(quiet)
    try:
        import wordllama  # noqa: PLC0415 - an optional dependency, and half a second to import
    finally:
        logging.getLogger().removeHandler(quiet)
    # `load` finds the weights in its own wheel, but the tokenizer only below cache_dir.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    model.tokenizer.no_padding()
    return model


def _encode(texts: Sequence[str], dimensions: int) -> tuple[Vectors, dict[int, str], int]:
    """Unit vectors of shape (n, dimensions), the refused texts by their index, and the tokens of all others."""
    model = local_model()
    encodings = model.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    vectors = np.full((len(texts), dimensions), np.nan, dtype=np.float32)
    refused: dict[int, str] = {}
    tokens = 0
    for index, encoding in enumerate(encodings):
        ids = encoding.ids
        if not ids:
            refused[index] = "is empty"
        elif len(ids) > MAX_INPUT_TOKENS:
            refused[index] = f"has {len(ids)} tokens, and {LOCAL_MODEL} takes at most {MAX_INPUT_TOKENS}"
        else:
            vector = model.embedding[ids].mean(axis=0)[:dimensions]
            vectors[index] = vector / np.linalg.norm(vector)
            tokens += len(ids)
    return vectors, refused, tokens
