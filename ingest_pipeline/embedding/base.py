"""The protocol of an embedder of the user, and what the clients of all models share: settings, results, packing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

from ingest_pipeline.embedding.prompts import Prompt, Prompts, prompts_of
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import Usage, Vectors, join_embedding

if TYPE_CHECKING:
    from ingest_pipeline.embedding.user_embedder import UserEmbedder

Purpose = Literal["document", "query"]
T = TypeVar("T")
Rows: TypeAlias = Sequence[Sequence[float]] | Vectors
"""Vectors as lists of numbers, or as an array with a row for each."""

_TEMPORARY = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
_NEVER_SERVED = {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}
BYTES_PER_TOKEN = 4
"""What a token of English has. Only `padded_tokens` is counted so, because it is no limit of an API."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What an embedder of the user computed, and what that took."""

    vectors: Rows
    """A vector for each text, in the order of the texts."""
    usage: Usage = field(default_factory=Usage)
    """Tokens and requests that a paid API billed. They count for the limits on tokens."""
    refused: Mapping[int, str] = field(default_factory=dict[int, str])
    """Why a text cannot be embedded, by its index, as in "has 9000 tokens". Only its document fails. Its vector is
    ignored."""


class Embedder(Protocol):
    """An embedder of the user. It computes the vectors of a corpus instead of an API or the local model.

    It runs in a child process with the environment and the network of the run. Its constructor runs in other processes
    too, so a model is loaded by the first call. It may have three more attributes: `batch_size`, the texts in one call,
    at most, 128 if absent; `concurrency`, the calls at once, each in a process of its own, 1 if absent; and `seconds`,
    the time for one call, 120 if absent.

    `ConnectionError`, `TimeoutError` and `ingest_pipeline.errors.UnavailableError` are temporary: the call is repeated.
    After any other exception the batch is divided until the text that causes it is alone. Only its document fails.
    """

    @property
    def fingerprint(self) -> str:
        """A text without spaces that changes whenever the same text may get another vector, arguments included."""
        ...

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Rows | Embeddings | Awaitable[Rows | Embeddings]:
        """Embed texts of documents. May be a coroutine function."""
        ...

    def embed_query(self, text: str) -> Sequence[float] | Vectors | Awaitable[Sequence[float] | Vectors]:
        """Embed a question. May be a coroutine function."""
        ...


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
    padded_tokens: int | None = None
    """Tokens in a batch, at most, if each text is padded to the longest one. None: texts are not sorted, see `pack`."""

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
    embedder: UserEmbedder | None = None
    """The embedder of the user that computes the vectors of `model` instead."""


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """The vectors of a batch, and what they took."""

    vectors: Vectors
    """Shape (n, dimensions), C-contiguous, in the order of the texts. The row of a refused text is NaN."""
    refused: Mapping[int, str]
    """Why the embedder refuses a text, by its index. Refused texts are not billed."""
    usage: Usage
    """What the batch took, from its first request to its last answer. Waiting for a free slot is not counted."""


class EmbeddingClient(Protocol):
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

    With `padded_tokens`, all items are read first, and batches have texts of about the same length.
    """
    prefix = len(settings.prompt("document").prefix.encode())
    sized = ((item, len(text_of(item).encode()) + prefix) for item in items)
    if settings.padded_tokens is not None:
        yield from _pack_sorted(sized, settings, settings.padded_tokens)
        return
    batch: list[T] = []
    tokens = 0
    for item, size in sized:
        if batch and (len(batch) == settings.batch_inputs or tokens + size > settings.batch_tokens):
            yield batch
            batch, tokens = [], 0
        batch.append(item)
        tokens += size
    if batch:
        yield batch


def _pack_sorted(sized: Iterable[tuple[T, int]], settings: EmbeddingSettings, padded_tokens: int) -> Iterator[list[T]]:
    """Group items of about the same size. A GPU computes a batch as a rectangle: each text is as wide as the longest.

    Args:
        sized: Items with the UTF-8 bytes of their texts.
        settings: The other limits of a batch.
        padded_tokens: Number of texts times tokens of the longest one, at most.
    """
    longest_first = sorted(sized, key=lambda one: one[1], reverse=True)
    batch: list[T] = []
    most = 1
    for item, size in longest_first:
        if not batch:
            width = max(1, size)
            most = min(
                settings.batch_inputs,
                settings.batch_tokens // width,
                padded_tokens // ceil(width / BYTES_PER_TOKEN),
            )
        batch.append(item)
        if len(batch) >= most:
            yield batch
            batch = []
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


def is_temporary(status: int) -> bool:
    """Whether a request that was answered with this HTTP status may succeed later.

    501 and 505 come from a server that cannot serve such a request at all, so waiting changes nothing.
    """
    return status in _TEMPORARY or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NEVER_SERVED)
