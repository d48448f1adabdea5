"""What all embedders share: the protocol, its settings, a batch's result, and how texts are packed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from ingest_pipeline.embedding.prompts import Prompt, Prompts, prompts_of
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Usage, Vectors, join_embedding

Purpose = Literal["document", "query"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """The model, and how much an embedder takes at once."""

    model: str
    dimensions: int
    concurrency: int = 16
    """Batches in progress at once, at most. An API that is overloaded gets fewer, see `AdaptiveConcurrency`."""
    batch_inputs: int = 128
    """Texts in a batch, at most. OpenAI's limit is 2,048."""
    batch_tokens: int = 300_000
    """Tokens in a batch, at most; OpenAI's limit. Counted as UTF-8 bytes, see `pack`."""
    prompts: Prompts | None = None
    """What is sent with each text. None: what is known of the model."""

    def prompt(self, purpose: Purpose) -> Prompt:
        """What is sent with a text of this purpose."""
        prompts = self.prompts or prompts_of(self.model)
        return prompts.query if purpose == "query" else prompts.document

    @property
    def embedding(self) -> str:
        """Model, dimensions and document prompt: the identity of the vectors, see `Recipe.embedding`."""
        return join_embedding(self.model, self.dimensions, self.prompt("document").encode())


@dataclass(frozen=True, slots=True)
class OpenAISettings(EmbeddingSettings):
    """A model at an OpenAI-compatible API, and how often a request is retried.

    None means OPENAI_BASE_URL and OPENAI_API_KEY. Endpoints other than OpenAI's may need no key.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds that one attempt may take to begin its answer, and again to end it."""
    max_retries: int = 6
    """The client waits 0.5 s before the first and doubles that up to 8 s, or up to 2 minutes if the API asks for it."""


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """The vectors of a batch, and what they took."""

    vectors: Vectors
    """Shape (n, dimensions), C-contiguous, in the order of the texts. The row of a refused text is NaN."""
    refused: Mapping[int, str]
    """Why the embedder refuses a text, by its index. Refused texts are not billed."""
    usage: Usage
    """What the batch took, from its first request to its last answer. Waiting for a free slot is not counted."""


class Embedder(Protocol):
    """Turns texts into vectors of one model. Used as an async context manager."""

    is_free: ClassVar[bool]
    """Whether nothing is billed, so that spending limits do not apply and the endpoint is not probed."""

    @property
    def settings(self) -> EmbeddingSettings:
        """The model and the size of batches."""
        ...

    @property
    def endpoint(self) -> str:
        """Where the model is served, without credentials."""
        ...

    async def embed(
        self, texts: Sequence[str], meter: UsageMeter | None = None, *, purpose: Purpose = "document"
    ) -> EmbeddedBatch:
        """Embed one batch. A text that cannot be embedded is refused alone and does not fail the batch.

        Args:
            texts: At most one batch, see `pack`.
            meter: Counts requests and tokens, also if the call fails.
            purpose: Whether the texts are of documents, or questions.
        """
        ...

    async def __aenter__(self) -> Self:
        """Return the embedder itself."""
        ...

    async def __aexit__(self, *args: object) -> None:
        """Close connections or threads."""
        ...


def pack(items: Iterable[T], settings: EmbeddingSettings, text_of: Callable[[T], str]) -> Iterator[list[T]]:
    """Group items into batches that one request can carry, in order, without reading ahead of the current batch.

    Tokens are counted as UTF-8 bytes. Every token of a byte-level BPE such as OpenAI's covers at least one byte, so a
    batch never exceeds the limit. A tokenizer would have to be downloaded and would be right for its own models only.
    A text that exceeds the limit by itself gets a batch of its own.
    """
    batch: list[T] = []
    tokens = 0
    prefix = len(settings.prompt("document").prefix.encode())
    for item in items:
        size = len(text_of(item).encode()) + prefix
        if batch and (len(batch) == settings.batch_inputs or tokens + size > settings.batch_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(item)
        tokens += size
    if batch:
        yield batch


def check_endpoint(url: str, setting: str) -> str:
    """Return the url if it can be the address of an embeddings API.

    Args:
        url: The address.
        setting: Name of the setting, for the error message.

    Raises:
        ConfigurationError: It is not an HTTP address.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = "" if "@" in url else f" {url!r}"  # a login precedes the @
        raise ConfigurationError(f"{setting}{shown} is not an HTTP address", "Write it like https://host/v1.")
    return url
