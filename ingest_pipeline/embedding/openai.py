"""Embeds through an OpenAI-compatible API. Only this module imports the client.

The client retries temporary faults (408, 409, 429, 5xx, broken connections) with backoff and the server's Retry-After.
This module adds what the client cannot know: which answers are not worth a retry, which are invalid, and which input
of a batch the API refuses.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

import httpx2
import numpy as np
import openai
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic_core import to_json

from ingest_pipeline.embedding._concurrency import AdaptiveConcurrency
from ingest_pipeline.embedding._response import Vectors, parse_answer, read_answer
from ingest_pipeline.embedding.base import EmbeddedBatch, OpenAISettings, Purpose, check_endpoint, is_temporary
from ingest_pipeline.embedding.certificates import trusted_certificates
from ingest_pipeline.embedding.prompts import Prompt
from ingest_pipeline.embedding.redaction import without_quotes
from ingest_pipeline.embedding.usage_meter import UsageMeter, count_answer, count_broken_answer, count_request, metered
from ingest_pipeline.errors import (
    ConfigurationError,
    EmbeddingAccessError,
    EmbeddingResponseError,
    EmbeddingUnavailableError,
    IngestError,
)

T = TypeVar("T")
Client: TypeAlias = AsyncOpenAI

_OPENAI = "https://api.openai.com/v1"
_CONNECT_SECONDS = 5.0
_TAKES_DIMENSIONS = "text-embedding-3"
_ABOUT_INPUT = re.compile(r"input|token|context length|too (long|large)|batch", re.IGNORECASE)
_NAMED_INPUT = re.compile(r"\binput\[(\d+)\]")
_TOO_MUCH = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529)
_NO_QUOTA = b'"insufficient_quota"'
_LONGEST_SILENCE = 120.0
_LEAST_UPLOAD = 256 << 10
"""Bytes a second. A request that is sent more slowly than this times out."""
_BODY = "ingest_pipeline.body"
"""Key of the parsed JSON among the extensions of a response."""


class _RefusedError(Exception):
    """The API refuses a request because of one input."""

    def __init__(self, problem: str, position: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.position = position


class _NotJsonError(httpx2.RemoteProtocolError):
    """An answer was truncated or does not come from the API. The base class makes the client retry."""


class _PacedClient(DefaultAsyncHttpxClient):
    """Sends every attempt, including retries, in its turn. The client's backoff does not occupy a turn."""

    def __init__(self, pace: AdaptiveConcurrency, seconds: float, **options: Any) -> None:  # noqa: ANN401  what the client's own takes
        super().__init__(verify=trusted_certificates(), **options)
        self._pace = pace
        self._seconds = seconds

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # noqa: ANN401  likewise
        async with self._pace.turn() as turn:
            count_request()
            try:
                response = await self._send_in_time(request, options)
            except httpx2.TimeoutException:
                turn.refuse()
                raise
            if response.status_code in _TOO_MUCH:
                turn.refuse(_wanted_silence(response.headers))
            return response

    async def _send_in_time(self, request: httpx2.Request, options: Mapping[str, Any]) -> httpx2.Response:
        """Limit the whole attempt. The client's own limits restart with every byte of an interim answer or header."""
        uploading = int(request.headers.get("content-length", "0")) / _LEAST_UPLOAD
        try:
            async with asyncio.timeout(self._seconds + uploading):
                return await super().send(request, **options)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the answer does not end", request=request) from error


def _wanted_silence(headers: Mapping[str, str]) -> float:
    """Seconds to wait, as the API requests; 0 if it requests more than two minutes, as the client does."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        return seconds if 0 < seconds <= _LONGEST_SILENCE else 0.0
    return 0.0


class OpenAIEmbedder:
    """Embeds through an OpenAI-compatible API. All users of one embedder share its limit on concurrency.

    Raises:
        EmbeddingAccessError: There is neither a key nor an endpoint that may need none.
        ConfigurationError: The endpoint is not an HTTP address.
    """

    is_free: ClassVar[bool] = False

    def __init__(self, settings: OpenAISettings) -> None:
        base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        check_endpoint(base_url, "The embedding endpoint")
        self.settings = settings
        self._key = _usable_key(settings, base_url)
        self._slots = asyncio.Semaphore(settings.concurrency)
        connecting = min(settings.timeout, _CONNECT_SECONDS)
        timeout = openai.Timeout(settings.timeout, connect=connecting)
        paced = _PacedClient(
            AdaptiveConcurrency(settings.concurrency),
            connecting + 2 * settings.timeout,
            event_hooks={"response": [self._judge_for_retry]},
        )
        self._client = AsyncOpenAI(
            api_key=self._key,
            base_url=base_url,
            timeout=timeout,
            max_retries=settings.max_retries,
            http_client=paced,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._client.close()

    @property
    def host(self) -> str:
        """The host of the endpoint, for messages."""
        return self._client.base_url.netloc.decode().rpartition("@")[2]

    @property
    def endpoint(self) -> str:
        """The address of the endpoint, without credentials. The ledger records under it which models it serves."""
        url = self._client.base_url
        return f"{url.scheme}://{self.host}{url.path}"

    async def embed(
        self, texts: Sequence[str], meter: UsageMeter | None = None, *, purpose: Purpose = "document"
    ) -> EmbeddedBatch:
        """Embed one batch, in one request unless the API refuses an input of it.

        If it does, the batch is divided until that input is alone. Refused requests cost nothing, and the other texts
        still get their vectors.

        Args:
            texts: At most one batch, see `pack`.
            meter: Counts requests and billed tokens, also if the call fails.
            purpose: Whether the texts are of documents, or questions. The model may want another prompt for each.

        Raises:
            EmbeddingAccessError: The key is refused, the quota is exhausted, or the model does not exist.
            EmbeddingUnavailableError: No answer within the retries.
            EmbeddingResponseError: The answer is invalid.
            ConfigurationError: The API refuses the request for a reason other than an input.
        """
        async with self._slots:
            meter = meter or UsageMeter()
            meter.restart()
            with metered(meter):
                vectors, refused = await self._embed(texts, meter, self.settings.prompt(purpose))
            return EmbeddedBatch(vectors, refused, replace(meter.usage, embedded=len(texts) - len(refused)))

    async def _embed(self, texts: Sequence[str], meter: UsageMeter, prompt: Prompt) -> tuple[Vectors, dict[int, str]]:
        answers: list[tuple[list[int], Vectors]] = []
        refused = {position: "is empty" for position, text in enumerate(texts) if not text}
        pending = [[position for position in range(len(texts)) if position not in refused]]
        while pending:
            part = pending.pop()
            if not part:
                continue
            meter.calls += 1
            try:
                answer = await self._request([texts[position] for position in part], prompt)
                if len(part) == len(texts):
                    return answer, refused
                answers.append((part, answer))
            except _RefusedError as error:
                if len(part) == 1:
                    refused[part[0]] = error.problem
                else:
                    pending += _divided(part, error.position)
        vectors = np.full((len(texts), self.settings.dimensions), np.nan, dtype=np.float32)
        for part, answer in answers:
            vectors[part] = answer
        return vectors, refused

    @property
    def narrowed(self) -> int | None:
        """The width to request, None for models that do not accept the parameter. Answers are checked in any case."""
        return self.settings.dimensions if self.settings.model.startswith(_TAKES_DIMENSIONS) else None

    async def call(self, made: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """Make another call to the same API. The client's errors are translated.

        Raises:
            EmbeddingAccessError, EmbeddingUnavailableError, ConfigurationError: As `embed` raises them.
        """
        failure: Exception
        try:
            return await made(self._client)
        except APIConnectionError as error:
            failure = self._connection_failure(error)
        except APIStatusError as error:
            failure = self._status_failure(error, ())
        if isinstance(failure, _RefusedError):
            failure = ConfigurationError(f"{self.host} refused a request: {failure.problem}")
        raise failure

    async def _request(self, texts: list[str], prompt: Prompt) -> Vectors:
        model, dimensions = self.settings.model, self.settings.dimensions
        body: dict[str, object] = {"model": model, "encoding_format": "base64"}
        if self.narrowed is not None:
            body["dimensions"] = self.narrowed
        body |= dict[str, object](prompt.fields) | {"input": [f"{prompt.prefix}{text}" for text in texts]}
        failure: Exception
        try:
            # `embeddings.create` copies, examines and encodes a body in Python, which takes as long as the rest of a
            # request.
            response = await self._client.post(
                "/embeddings",
                cast_to=httpx2.Response,
                content=to_json(body),
                options={"headers": {"Content-Type": "application/json"}},
            )
        except APIConnectionError as error:
            failure = self._connection_failure(error)
        except APIStatusError as error:
            failure = self._status_failure(error, texts)
        else:
            try:
                vectors, _ = read_answer(response.extensions[_BODY], len(texts), dimensions)
            except ValueError as error:
                failure = EmbeddingResponseError(
                    f"{self.host} answered {model!r} with {self._clean(str(error), texts)}"
                )
            else:
                return vectors
        # Raised outside of the handler, because the client's exception may quote the key.
        raise failure

    async def _judge_for_retry(self, response: httpx2.Response) -> None:
        """Make the client retry, or not, where the status code alone is misleading."""
        try:
            async with asyncio.timeout(self.settings.timeout):
                await response.aread()
        except TimeoutError as error:
            # The client's own limit starts again with every byte.
            raise httpx2.ReadTimeout("the answer does not end", request=response.request) from error
        has_no_quota = response.status_code == HTTPStatus.TOO_MANY_REQUESTS and _NO_QUOTA in response.content
        if has_no_quota or (response.is_server_error and not is_temporary(response.status_code)):
            response.headers["x-should-retry"] = "false"
        if response.is_success and response.request.url.path.endswith("/embeddings"):
            try:
                # Kept, because megabytes of text take a while to parse.
                body = response.extensions[_BODY] = parse_answer(response.content)
                count_answer(body)
            except ValueError as error:
                count_broken_answer(response.content)
                raise _NotJsonError("not JSON", request=response.request) from error

    def _connection_failure(self, error: APIConnectionError) -> IngestError:
        sent = f"{self.settings.max_retries + 1} requests"
        reason = type(error.__cause__ or error).__name__
        if isinstance(error.__cause__, _NotJsonError):
            return EmbeddingResponseError(f"{self.host} answered {sent} with something that is not JSON")
        if isinstance(error, APITimeoutError):
            limit = f"{self.settings.timeout:g} s each"
            return EmbeddingUnavailableError(f"{self.host} did not answer {sent} within {limit} ({reason})")
        return EmbeddingUnavailableError(f"{self.host} broke or refused the connection of {sent} ({reason})")

    def _status_failure(self, error: APIStatusError, texts: Sequence[str]) -> Exception:
        if access := self._access_failure(error, texts):
            return access
        said, sent = self._clean(error.message, texts), _sent(error)
        if is_temporary(error.status_code):
            wait = error.response.headers.get("retry-after")
            asked = f"; it asks to wait {self._clean(wait, ())} s" if wait else ""
            return EmbeddingUnavailableError(f"{self.host} refused {sent} requests, the last with: {said}{asked}")
        if error.status_code in {400, 413, 422} and _ABOUT_INPUT.search(str(error.param or error.message)):
            named = _NAMED_INPUT.search(f"{error.param} {error.message}")
            return _RefusedError(said, int(named[1]) if named else None)
        return ConfigurationError(
            f"{self.host} refused a request for {self.settings.model!r}: {said}",
            "Check INGEST_EMBEDDING_MODEL, INGEST_EMBEDDING_DIMENSIONS and OPENAI_BASE_URL.",
        )

    def _access_failure(self, error: APIStatusError, texts: Sequence[str]) -> EmbeddingAccessError | None:
        host = self.host
        match error.status_code:
            case 401:
                # The API's message quotes part of the key.
                return EmbeddingAccessError(f"{host} refused the key (401)", "Check OPENAI_API_KEY.")
            case 403:
                said = self._clean(error.message, texts)
                return EmbeddingAccessError(f"{host} refused the key: {said}", "Check what OPENAI_API_KEY may do.")
            case 404:
                return EmbeddingAccessError(
                    f"{host} does not know the embedding model {self.settings.model!r} (404)",
                    "Check INGEST_EMBEDDING_MODEL and OPENAI_BASE_URL.",
                )
            case 429 if "insufficient_quota" in (error.code, error.type):
                return EmbeddingAccessError(f"The quota at {host} is exhausted", "Check the plan and its billing.")
            case _:
                return None

    def _clean(self, message: str, texts: Sequence[str]) -> str:
        """A message of the API as one line, without the key and without what it quotes of the texts."""
        return without_quotes(" ".join(message.replace(self._key, "***").split())[:500], texts)


def _usable_key(settings: OpenAISettings, base_url: str) -> str:
    key = (settings.api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
    if not key and base_url != _OPENAI:
        return "no-key"
    if not key:
        raise EmbeddingAccessError(
            f"There is no key for the embedding model {settings.model!r} at api.openai.com",
            "Set OPENAI_API_KEY, or set OPENAI_BASE_URL to an endpoint that needs none.",
        )
    if not (key.isascii() and key.isprintable()):
        # The client would fail and retry with every request.
        raise EmbeddingAccessError("The embedding key has characters that no key has", "Check OPENAI_API_KEY.")
    return key


def _sent(error: APIStatusError) -> int:
    return 1 + int(error.request.headers["x-stainless-retry-count"])


def _divided(part: list[int], named: int | None) -> list[list[int]]:
    """The input that the API named and the rest, or two halves if it named none."""
    if named is not None and named < len(part):
        return [part[:named] + part[named + 1 :], [part[named]]]
    middle = len(part) // 2
    return [part[middle:], part[:middle]]
