"""A client of rerank endpoints: the protocol that Cohere, Jina and Text Embeddings Inference (TEI) share.

A request names the question and the texts, which Cohere and Jina call ``documents`` and TEI calls ``texts``. Both names
are sent in turn: an endpoint that refuses the first as malformed gets the second from then on. Answers are a list of
``index`` and ``score`` (TEI), or the same under ``results`` with ``relevance_score`` (Cohere, Jina).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx2

from ingest_pipeline.embedding.base import is_temporary
from ingest_pipeline.embedding.certificates import trusted_certificates
from ingest_pipeline.embedding.redaction import without_quotes
from ingest_pipeline.errors import (
    ConfigurationError,
    IngestError,
    RerankerAccessError,
    RerankerResponseError,
    RerankerUnavailableError,
)

_MAX_TEXTS = 1_000
_GREATEST_MESSAGE = 300
_FIRST_WAIT_SECONDS = 0.25
_MALFORMED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """A rerank endpoint."""

    url: str
    """The whole address, such as ``https://api.cohere.com/v2/rerank`` or ``http://localhost:8080/rerank``."""
    model: str | None = None
    """None: the endpoint serves one model, as TEI does."""
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 10.0
    """Seconds for one attempt."""
    deadline: float = 20.0
    """Seconds for all attempts together."""
    max_retries: int = 2


class RerankEndpoint:
    """A reranker behind HTTP. Used as an async context manager."""

    def __init__(self, settings: RerankSettings) -> None:
        self.settings = settings
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx2.AsyncClient(timeout=settings.timeout, headers=headers, verify=trusted_certificates())
        self._host = urlsplit(settings.url).netloc.rpartition("@")[2]
        self._names = ["documents", "texts"]

    async def __aenter__(self) -> Self:
        """Return the endpoint itself."""
        return self

    async def __aexit__(self, *args: object) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, in the order of the texts. Higher is better.

        Raises:
            RerankerUnavailableError: No answer within the deadline.
            RerankerAccessError: The endpoint refuses the key.
            RerankerResponseError: The answer is not that of a reranker.
            ConfigurationError: The endpoint refuses the request.
        """
        if not texts:
            return []
        if len(texts) > _MAX_TEXTS:
            raise ConfigurationError(f"{len(texts)} texts to rerank are more than {_MAX_TEXTS}", "Lower the limit.")
        failure: IngestError
        try:
            async with asyncio.timeout(self.settings.deadline):
                return await self._rerank(question, texts)
        except TimeoutError:
            failure = RerankerUnavailableError(
                f"The reranker at {self._host} gave no answer within {self.settings.deadline:g} s"
            )
        raise failure

    async def _rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        while True:
            response = await self._sent({"query": question, self._names[0]: list(texts)}, len(texts))
            if response.status_code in _MALFORMED and len(self._names) > 1:
                self._names = self._names[1:]
                continue
            if not response.is_success:
                raise self._refusal(response, [question, *texts])
            try:
                return read_scores(response.json(), len(texts))
            except ValueError as error:
                raise RerankerResponseError(f"The reranker at {self._host} answered with {error}") from None

    async def _sent(self, body: dict[str, Any], count: int) -> httpx2.Response:
        """Send the request again after a temporary fault, a little later each time."""
        if self.settings.model is not None:
            body |= {"model": self.settings.model}
        if "documents" in body:
            body |= {"top_n": count}
        problem = ""
        for attempt in range(self.settings.max_retries + 1):
            if attempt:
                await asyncio.sleep(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1))
            try:
                response = await self._client.post(self.settings.url, json=body)
            except httpx2.HTTPError as error:
                problem = type(error).__name__
                continue
            if not is_temporary(response.status_code):
                return response
            problem = f"status {response.status_code}"
        raise RerankerUnavailableError(
            f"The reranker at {self._host} failed {self.settings.max_retries + 1} times, the last with {problem}"
        )

    def _refusal(self, response: httpx2.Response, texts: Sequence[str]) -> IngestError:
        if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return RerankerAccessError(f"The reranker at {self._host} refused the key ({response.status_code})")
        said = " ".join(response.text.split())[:_GREATEST_MESSAGE]
        if self.settings.api_key:
            said = said.replace(self.settings.api_key, "***")
        return ConfigurationError(
            f"The reranker at {self._host} refused a request ({response.status_code}): {without_quotes(said, texts)}",
            "Check INGEST_RERANK_URL and INGEST_RERANK_MODEL.",
        )


def read_scores(body: object, count: int) -> list[float]:
    """The scores of an answer, in the order of the texts.

    Raises:
        ValueError: The answer is invalid. The message completes the phrase "answered with".
    """
    items = cast("dict[str, object]", body).get("results") if isinstance(body, dict) else body
    if not isinstance(items, list):
        raise ValueError("no list of results")  # noqa: TRY004  one kind of error for the caller
    scores: dict[int, float] = {}
    for item in cast("list[object]", items):
        entry = cast("dict[str, object]", item) if isinstance(item, dict) else {}
        index, score = entry.get("index"), entry.get("relevance_score", entry.get("score"))
        if type(index) is not int or not 0 <= index < count or index in scores:
            raise ValueError(f"the index {index!r} twice or out of range")
        if type(score) not in (int, float) or not math.isfinite(cast("float", score)):
            raise ValueError(f"the score {score!r}")
        scores[index] = float(cast("float", score))
    if len(scores) != count:
        raise ValueError(f"{len(scores)} scores for {count} texts")
    return [scores[index] for index in range(count)]
