"""Embeds with an embedder of the user: retries, divides a batch that fails, and checks every vector."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Self

import numpy as np

from ingest_pipeline.embedding.base import EmbeddedBatch, EmbeddingSettings, OpenAISettings, Purpose
from ingest_pipeline.embedding.prompts import Prompts
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.embedding.user_embedder import UserEmbedder
from ingest_pipeline.embedding.user_embedder_role import EmbedderAnswer, answer_bytes, read_answer, request
from ingest_pipeline.errors import EmbedderError, EmbeddingUnavailableError
from ingest_pipeline.extensions.pool import HookFailedError
from ingest_pipeline.types import Vectors

_MAX_FAILED_TEXTS: Final = 8
"""So many texts in a row that fail alone mean that the embedder is wrong, and not the texts."""
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 8.0
"""Seconds before a temporary failure is retried, as the client of an API waits."""


@dataclass(slots=True)
class _Batch:
    """The texts of one batch, and what is known of them so far."""

    texts: Sequence[str]
    vectors: Vectors
    refused: dict[int, str] = field(default_factory=dict[int, str])


class UserEmbedderClient:
    """Embeds with an embedder of the user, in child processes.

    If a call fails, the batch is divided until the text that makes it fail is alone, so that only its document fails.

    Args:
        embedder: The embedder.
        settings: How much is embedded at once, at most, and how often a temporary failure is retried.
    """

    is_free: ClassVar[bool] = False

    def __init__(self, embedder: UserEmbedder, settings: OpenAISettings) -> None:
        self.settings = EmbeddingSettings(
            embedder.model,
            embedder.dimensions,
            min(settings.concurrency, embedder.concurrency),
            min(settings.batch_inputs, embedder.batch_size),
            settings.batch_tokens,
            Prompts(),
            settings.padded_tokens,
        )
        self._embedder = embedder
        self._max_retries = settings.max_retries
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        self._threads = ThreadPoolExecutor(self.settings.concurrency, "user-embedder")
        self._failed_texts = 0

    @property
    def endpoint(self) -> str:
        """The class that serves the model."""
        return self._embedder.hook.extension.path

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        # Without waiting: a thread that still waits for a child ends with the time limit of the call.
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def embed(
        self, texts: Sequence[str], meter: UsageMeter | None = None, *, purpose: Purpose = "document"
    ) -> EmbeddedBatch:
        """Embed one batch.

        Args:
            texts: At most one batch, see `pack`. One, if the purpose is a query.
            meter: Counts calls and billed tokens, also if the call fails.
            purpose: Whether the texts are of documents, or a question.

        Raises:
            EmbeddingUnavailableError: The embedder reports a temporary failure, and so did all retries.
            EmbedderError: It fails with every text, or returns something that is no list of vectors of its width.
            ConfigurationError: Its child process does not start.
        """
        meter = meter or UsageMeter()
        async with self._slots:
            meter.restart()
            batch = _Batch(texts, np.full((len(texts), self.settings.dimensions), np.nan, dtype=np.float32))
            batch.refused |= {index: "is empty" for index, text in enumerate(texts) if not text}
            await self._embed(batch, purpose, meter)
            usage = replace(meter.usage, embedded=len(texts) - len(batch.refused))
            return EmbeddedBatch(batch.vectors, batch.refused, usage)

    async def _embed(self, batch: _Batch, purpose: Purpose, meter: UsageMeter) -> None:
        pending = [[index for index in range(len(batch.texts)) if index not in batch.refused]]
        while pending:
            part = pending.pop()
            if not part:
                continue
            try:
                answer = await self._request([batch.texts[index] for index in part], purpose, meter)
            except HookFailedError as failure:
                if len(part) == 1:
                    self._refuse(batch, {part[0]: f"makes the {self._embedder.hook.name} fail, which {failure}"})
                else:
                    middle = len(part) // 2
                    pending += [part[middle:], part[:middle]]
                continue
            self._take(batch, part, answer)

    def _take(self, batch: _Batch, part: Sequence[int], answer: EmbedderAnswer) -> None:
        wrong = {*answer.refused, *answer.unusable}
        for position, index in enumerate(part):
            if position not in wrong:
                batch.vectors[index] = answer.vectors[position]
                self._failed_texts = 0
        batch.refused |= {part[position]: reason for position, reason in answer.refused.items()}
        name = self._embedder.hook.name
        self._refuse(batch, {part[at]: f"gets {what} from the {name}" for at, what in answer.unusable.items()})

    def _refuse(self, batch: _Batch, reasons: Mapping[int, str]) -> None:
        """Refuse texts with which the embedder failed.

        Raises:
            EmbedderError: It failed with many texts and with no other meanwhile.
        """
        batch.refused |= reasons
        self._failed_texts += len(reasons)
        if self._failed_texts >= _MAX_FAILED_TEXTS:
            raise EmbedderError(
                f"{self._failed_texts} texts in a row could not be embedded. The last {batch.refused[max(reasons)]}"
            )

    async def _request(self, texts: Sequence[str], purpose: Purpose, meter: UsageMeter) -> EmbedderAnswer:
        """Call the embedder, and again after temporary failures.

        Raises:
            HookFailedError: It raised an exception, exceeded a limit or ended its process.
            EmbeddingUnavailableError, EmbedderError: As `embed`.
        """
        name, wait, attempts = self._embedder.hook.name, _FIRST_WAIT, 0
        meter.calls += 1
        while True:
            attempts += 1
            meter.requests += 1
            answer = await self._call(texts, purpose)
            meter.tokens += answer.usage.tokens
            meter.requests += max(0, answer.usage.requests - 1)
            meter.calls += max(0, answer.usage.requests - 1)
            if answer.invalid:
                raise EmbedderError(f"The {name} {answer.invalid}")
            if not answer.temporary:
                return answer
            if attempts > self._max_retries:
                raise EmbeddingUnavailableError(
                    f"The {name} failed {attempts} times, the last time with {answer.temporary}"
                )
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _call(self, texts: Sequence[str], purpose: Purpose) -> EmbedderAnswer:
        dimensions, hook = self.settings.dimensions, self._embedder.hook
        head = {"purpose": purpose, "dimensions": dimensions}
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(
            self._threads, hook.call, head, request(texts), answer_bytes(len(texts), dimensions)
        )
        try:
            return read_answer(data, len(texts), dimensions)
        except (ValueError, TypeError):
            raise EmbedderError(f"The child process of the {hook.name} returned something invalid") from None
