"""Calls of OpenAI's Batch API: upload requests, create a batch, find and follow it, read its results.

`ingestion.batch_jobs` decides what is submitted and records it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ingest_pipeline.embedding._response import Vectors, read_answer
from ingest_pipeline.embedding.usage_meter import billed_tokens

if TYPE_CHECKING:
    from ingest_pipeline.embedding.openai import Client, OpenAIEmbedder

METADATA_KEY = "ingest_pipeline_saga"
"""Metadata key under which the API keeps the saga's id."""
_ENDED = ("completed", "expired", "failed", "cancelled")
# Largest difference between the API's clock and ours.
_CLOCK_SKEW = timedelta(hours=1)
_PAGE_ROWS = 100
_ENDPOINT: Final = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """A batch that the API no longer works on."""

    status: str
    output: bytes
    """The answers as JSON Lines, empty if there are none."""


@dataclass(slots=True)
class BatchOutput:
    """The parsed answers of a batch."""

    answers: dict[int, tuple[Vectors, int]] = field(default_factory=dict[int, tuple[Vectors, int]])
    """Vectors and tokens by the number of the request, without failed requests."""
    unusable_texts: int = 0
    """Texts of answers that were billed but cannot be used."""
    unusable_tokens: int = 0
    unusable_requests: int = 0


class BatchApi:
    """The Batch endpoint of the API that an embedder uses. All calls raise what `OpenAIEmbedder.call` raises."""

    def __init__(self, embedder: OpenAIEmbedder) -> None:
        self._embedder = embedder

    def texts_a_request(self, tokens_a_text: int) -> int:
        """How many texts of so many tokens one request may have, so that no request exceeds a limit of the API."""
        settings = self._embedder.settings
        return max(1, min(settings.batch_inputs, settings.batch_tokens // tokens_a_text))

    async def upload(self, saga: UUID, texts: Sequence[str], texts_a_request: int) -> str:
        """Upload the requests of a batch as a file, and return the id of the file. An upload is not billed."""
        lines = self._lines(texts, texts_a_request)
        uploaded = await self._embedder.call(
            lambda client: client.files.create(file=(f"{saga}.jsonl", lines), purpose="batch")
        )
        return uploaded.id

    async def create(self, saga: UUID, file: str) -> str:
        """Create a batch from an uploaded file, and return the id of the batch. From now on the API bills it."""
        # Without retries by the client: if an answer is lost, the API would accept the batch a second time.
        batch = await self._embedder.call(
            lambda client: client.with_options(max_retries=0).batches.create(
                input_file_id=file,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={METADATA_KEY: str(saga)},
            )
        )
        return batch.id

    async def find(self, saga: UUID, created_at: datetime) -> str | None:
        """Find a batch in the API's list by its saga. None: the API has no such batch since that time."""
        oldest = (created_at - _CLOCK_SKEW).timestamp()

        async def find(client: Client) -> str | None:
            async for batch in client.batches.list(limit=_PAGE_ROWS):
                if (batch.metadata or {}).get(METADATA_KEY) == str(saga):
                    return batch.id
                if batch.created_at < oldest:
                    break
            return None

        return await self._embedder.call(find)

    async def ended(self, batch_id: str) -> EndedBatch | None:
        """Download the answers of a batch that ended. None: the API still works on it."""
        batch = await self._embedder.call(lambda client: client.batches.retrieve(batch_id))
        if batch.status not in _ENDED:
            return None
        if (file := batch.output_file_id) is None:
            return EndedBatch(batch.status, b"")
        content = await self._embedder.call(lambda client: client.files.content(file))
        return EndedBatch(batch.status, content.content)

    def parse(self, output: bytes, count: Callable[[int], int]) -> BatchOutput:
        """Parse and check the answers of a batch. Damaged lines are skipped.

        Args:
            output: The answers as JSON Lines.
            count: Returns how many texts the request of a number has, 0 if there is no such request.
        """
        parsed = BatchOutput()
        for line in output.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                item = json.loads(line)
                number, body = int(item["custom_id"]), item["response"]["body"]
                if not (texts := count(number)):
                    continue
                try:
                    parsed.answers[number] = read_answer(body, texts, self._embedder.settings.dimensions)
                except ValueError:
                    if tokens := billed_tokens(body):
                        parsed.unusable_texts += texts
                        parsed.unusable_tokens += tokens
                        parsed.unusable_requests += 1
        return parsed

    def _lines(self, texts: Sequence[str], texts_a_request: int) -> bytes:
        """The numbered requests in the format of the Batch endpoint, JSON Lines."""
        prompt = self._embedder.settings.prompt("document")
        body: dict[str, object] = {"model": self._embedder.settings.model, "encoding_format": "base64"}
        body |= dict(prompt.fields)
        if self._embedder.narrowed is not None:
            body["dimensions"] = self._embedder.narrowed
        inputs = [f"{prompt.prefix}{text}" for text in texts]
        requests = (inputs[start : start + texts_a_request] for start in range(0, len(inputs), texts_a_request))
        return b"".join(
            json.dumps(
                {"custom_id": str(number), "method": "POST", "url": _ENDPOINT, "body": {**body, "input": request}}
            ).encode()
            + b"\n"
            for number, request in enumerate(requests)
        )
