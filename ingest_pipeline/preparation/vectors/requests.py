"""Sends requests to the embedder, and records every answer before it is used.

The vectors of answers that arrive at about the same time go into one file of the spool. Then one transaction records
the file and the usage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddedBatch, EmbeddingClient, pack
from ingest_pipeline.embedding.usage_meter import UsageMeter
from ingest_pipeline.errors import EmbeddingResponseError, IngestError, UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.files.spool import spool_name
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors.lookup import VectorLookup
from ingest_pipeline.telemetry.embedding_calls import embedding_call
from ingest_pipeline.telemetry.metrics import count_usage
from ingest_pipeline.types import Recipe, Usage, Vector, Vectors

# After a failure, requests in progress are awaited for this long, because their answers are billed in any case.
_LAST_ANSWERS_SECONDS = 10.0
# Texts that are sorted by length together. More would wait longer, and pad hardly less.
_SORTED_TEXTS = 1024
# A look-up reads whole files. With 128 vectors of 1,536 dimensions in an answer, a file has at most 6 MB.
_MAX_ANSWERS_IN_FILE = 8


class RefusedTextError(Exception):
    """The embedder refused a text. The message is its reason."""


@dataclass(frozen=True, slots=True)
class PendingVector:
    """The vector of a chunk, which may not have arrived yet."""

    text_hash: UUID
    vector: asyncio.Future[Vector]
    request: EmbeddingRequest | None
    """The text that is embedded for this chunk. None: its vector exists, or is embedded for another chunk."""


@dataclass(slots=True)
class EmbeddingRequest:
    """A text to embed, and its share of the usage."""

    text_hash: UUID
    text: str
    vector: asyncio.Future[Vector]
    batch: int = 0
    """Ordinal of the batch that contained it, within the saga."""
    tokens: int = 0
    """Its share of the tokens of its batch, by characters. Set together with the vector."""
    batch_usage: Usage = field(default_factory=Usage)
    """The usage of the whole batch."""


@dataclass(frozen=True, slots=True)
class _CompletedBatch:
    ordinal: int
    requests: Sequence[EmbeddingRequest]
    answer: EmbeddedBatch

    @property
    def embedded(self) -> list[int]:
        """Indices of the texts that were not refused."""
        return [index for index in range(len(self.requests)) if index not in self.answer.refused]

    @property
    def text_hashes(self) -> list[UUID]:
        """Hashes of the texts that were not refused."""
        return [self.requests[index].text_hash for index in self.embedded]

    @property
    def vectors(self) -> Vectors:
        """Vectors of the texts that were not refused."""
        return self.answer.vectors[self.embedded] if self.answer.refused else self.answer.vectors

    @property
    def characters(self) -> int:
        """Number of characters of the texts that were not refused."""
        return _characters([self.requests[index] for index in self.embedded])

    def deliver(self) -> None:
        """Give the vectors to the tasks that wait for them."""
        self._share_tokens()
        for index, request in enumerate(self.requests):
            if request.vector.done():
                continue  # the task that waited for it was cancelled
            if index in self.answer.refused:
                request.vector.set_exception(RefusedTextError(self.answer.refused[index]))
                request.vector.exception()  # marks it as retrieved, so that asyncio logs nothing if no task waits
            else:
                request.vector.set_result(self.answer.vectors[index])

    def _share_tokens(self) -> None:
        """Divide the tokens among the texts in whole numbers that add up to the total."""
        tokens, characters, passed = self.answer.usage.tokens, self.characters, 0
        for index in self.embedded:
            request = self.requests[index]
            before = tokens * passed // characters
            passed += len(request.text)
            request.tokens = tokens * passed // characters - before
        for request in self.requests:
            request.batch, request.batch_usage = self.ordinal, self.answer.usage


@dataclass(frozen=True, slots=True)
class _FailedBatch:
    characters: int
    usage: Usage
    is_invalid_answer: bool
    """The endpoint answered, but not with vectors of the requested model and width."""


class EmbeddingRequests:
    """Embeds texts for one saga in batches and records each answer, usable or not, before it is used.

    An endpoint that has never served the model and width gets one text alone before the first batch.

    Args:
        corpus: The corpus whose ledger records the answers.
        embedder: Shared by all preparations of the process, and with it the limit on concurrency.
        recipe: Names the model and the dimensions.
        saga: The saga under which answers are recorded.
        guard: The limits of the run.
        lookup: Learns what is recorded.
    """

    def __init__(
        self,
        corpus: Corpus,
        embedder: EmbeddingClient,
        recipe: Recipe,
        saga: UUID,
        *,
        guard: SpendingGuard,
        lookup: VectorLookup,
    ) -> None:
        self._corpus = corpus
        self._embedder = embedder
        self._embedding = recipe.embedding
        self._saga = saga
        self._guard = guard
        self._lookup = lookup
        self._pending: list[EmbeddingRequest] = []
        self._pending_characters = 0
        self._batch_count = 0
        self._recorded_count = 0
        self._completed: list[_CompletedBatch] = []
        self._failed: list[_FailedBatch] = []
        self._in_progress: dict[asyncio.Task[None], UsageMeter] = {}
        self._is_served = embedder.is_free
        self._recording = asyncio.Lock()
        # Twice as many as the embedder takes at once, so that it is kept busy while answers are recorded.
        self._slots = asyncio.Semaphore(2 * embedder.settings.concurrency)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Let batches run as tasks of the group, so that the first failure ends it."""
        self._tasks = tasks

    def refresh(self, connection: Connection) -> None:
        """Read whether the endpoint is known to serve the model, and what was billed until now."""
        self._is_served = self._is_served or embedding_cache.is_served(
            connection, self._embedder.endpoint, self._embedding
        )
        self._guard.refresh(connection)

    async def add(self, request: EmbeddingRequest) -> None:
        """Put a text into the next batch. Sends the batch when it is full, and waits if too many are in progress."""
        self._pending.append(request)
        self._pending_characters += len(request.text)
        settings = self._embedder.settings
        is_full = len(self._pending) >= settings.batch_inputs or self._pending_characters >= settings.batch_tokens
        if is_full if settings.padded_tokens is None else len(self._pending) >= _SORTED_TEXTS:
            await self.flush()

    async def flush(self) -> None:
        """Send the texts that wait for a batch to become full."""
        pending, self._pending, self._pending_characters = self._pending, [], 0
        while pending and not self._is_served:
            # One text alone, and its answer is awaited. If the text is refused, the next one tests the endpoint.
            await self._send(*await self._next_batch(pending[:1]))
            pending = pending[1:]
        for batch in pack(pending, self._embedder.settings, lambda request: request.text):
            self._tasks.create_task(self._send(*await self._next_batch(batch)))

    async def close(self) -> None:
        """Send no more requests. Record the answers that arrive within some seconds.

        This is for a preparation that fails or is cancelled: answers of sent requests are billed in any case.
        """
        for request, meter in self._in_progress.items():
            if not meter.requests:
                request.cancel()
        requests = list(self._in_progress)
        if requests:
            _, late = await asyncio.wait(requests, timeout=_LAST_ANSWERS_SECONDS)
            for request in late:
                request.cancel()
            # Their errors are ignored: the first failure has ended the preparation.
            await asyncio.gather(*requests, return_exceptions=True)

    async def _next_batch(self, batch: Sequence[EmbeddingRequest]) -> tuple[int, Sequence[EmbeddingRequest]]:
        await self._slots.acquire()
        if not self._guard.is_off:
            await asyncio.to_thread(self._guard.reserve, _characters(batch))
        self._batch_count += 1
        return self._batch_count - 1, batch

    async def _send(self, ordinal: int, batch: Sequence[EmbeddingRequest]) -> None:
        """Embed a batch in a task that survives the cancellation of this one, see `close`."""
        meter = UsageMeter()
        request = asyncio.create_task(self._embed(ordinal, batch, meter))
        self._in_progress[request] = meter
        request.add_done_callback(self._in_progress.pop)
        try:
            await asyncio.shield(request)
        finally:
            self._slots.release()

    async def _embed(self, ordinal: int, batch: Sequence[EmbeddingRequest], meter: UsageMeter) -> None:
        try:
            with self._observed(batch, meter), boundary(Boundary.BATCH_SENT):
                answer = await self._embedder.embed([request.text for request in batch], meter)
        except IngestError as error:
            is_invalid = isinstance(error, EmbeddingResponseError)
            self._failed.append(_FailedBatch(_characters(batch), meter.usage, is_invalid))
            with suppress(UnavailableError):  # the reason for the failure matters more than a failure to record it
                await self._record_all()
            raise
        self._completed.append(_CompletedBatch(ordinal, batch, answer))
        await self._record_all()

    def _observed(self, batch: Sequence[EmbeddingRequest], meter: UsageMeter) -> AbstractContextManager[None]:
        settings = self._embedder.settings
        return embedding_call(
            settings.model, settings.dimensions, self._embedder.endpoint, len(batch), lambda: meter.usage
        )

    async def _record_all(self) -> None:
        """Record answers that have arrived since the last time, then deliver them.

        Every answer is recorded by the call that follows its arrival, or by an earlier one.
        """
        async with self._recording:
            completed = self._completed[:_MAX_ANSWERS_IN_FILE]
            self._completed = self._completed[_MAX_ANSWERS_IN_FILE:]
            failed, self._failed = self._failed, []
            if completed or failed:
                ordinal = self._recorded_count
                self._recorded_count += 1
                await asyncio.to_thread(self._spool_and_record, ordinal, completed, failed)
            for batch in completed:
                batch.deliver()

    def _spool_and_record(
        self, ordinal: int, completed: Sequence[_CompletedBatch], failed: Sequence[_FailedBatch]
    ) -> None:
        try:
            checksum = self._spool(ordinal, completed)
        except UnavailableError:
            # The answers are billed, so Postgres keeps them until the store is usable again.
            content = b"".join(batch.vectors.astype("<f4").tobytes() for batch in completed)
            self._record(ordinal, completed, failed, checksum=b"", vectors=content)
            raise
        self._record(ordinal, completed, failed, checksum=checksum)

    def _spool(self, ordinal: int, completed: Sequence[_CompletedBatch]) -> bytes:
        """Write the vectors of some answers into one durable file, and return its checksum."""
        answers = [batch for batch in completed if batch.text_hashes]
        if not answers:
            return b""
        name = spool_name(self._saga, ordinal)
        return self._corpus.table.spool.write(name, [batch.vectors for batch in answers])

    def _record(
        self,
        ordinal: int,
        completed: Sequence[_CompletedBatch],
        failed: Sequence[_FailedBatch],
        *,
        checksum: bytes,
        vectors: bytes | None = None,
    ) -> None:
        text_hashes = [text_hash for batch in completed for text_hash in batch.text_hashes]
        with ExitStack() as effects:
            for _ in completed:
                effects.enter_context(boundary(Boundary.BATCH_RECORDED))
            connection = effects.enter_context(self._corpus.database.transaction())
            for attempt in failed:
                characters = attempt.characters if attempt.usage.tokens else 0
                embedding_cache.record_unusable(connection, self._saga, characters=characters, usage=attempt.usage)
            self._mark_served(connection, completed, failed)
            self._lookup.notice_others(connection)
            if completed:
                has_ended = embedding_cache.record_batch(
                    connection,
                    self._saga,
                    ordinal=ordinal,
                    embedding=self._embedding,
                    text_hashes=text_hashes,
                    checksum=checksum,
                    characters=sum(batch.characters for batch in completed),
                    usage=sum((batch.answer.usage for batch in completed), Usage()),
                    vectors=vectors,
                )
                if has_ended and vectors is None:
                    # A sweep may have removed the file before it was recorded.
                    self._spool(ordinal, completed)
            reserved = sum(_characters(batch.requests) for batch in completed)
            self._guard.release(connection, reserved + sum(attempt.characters for attempt in failed))
        self._lookup.add_recorded(ordinal, text_hashes)
        usages = (*(batch.answer.usage for batch in completed), *(attempt.usage for attempt in failed))
        count_usage(sum(usages, Usage()))

    def _mark_served(
        self, connection: Connection, completed: Sequence[_CompletedBatch], failed: Sequence[_FailedBatch]
    ) -> None:
        if self._embedder.is_free:
            return
        if any(attempt.is_invalid_answer for attempt in failed):
            embedding_cache.forget_served(connection, self._embedder.endpoint, self._embedding)
        elif not self._is_served and any(batch.embedded for batch in completed):
            embedding_cache.mark_served(connection, self._embedder.endpoint, self._embedding)
            self._is_served = True


def _characters(batch: Sequence[EmbeddingRequest]) -> int:
    return sum(len(request.text) for request in batch)
