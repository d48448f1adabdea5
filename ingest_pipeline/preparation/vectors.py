"""Vectors for texts: found where they were paid for already, bought where they were not, and recorded at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakValueDictionary

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddedBatch, Embedder, pack
from ingest_pipeline.embedding.usage import UsageMeter
from ingest_pipeline.errors import EmbeddingResponseError, IngestError, UnavailableError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.postgres import documents, embedding_cache, sagas
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.preparation.published_vectors import PublishedVectors
from ingest_pipeline.preparation.seen_texts import CompactHashSet
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.types import Chunk, Recipe, Usage, Vector

# Requests that are under way when another one fails are waited for, because their answers are billed in any case.
_LAST_ANSWERS_SECONDS = 10.0


class RefusedTextError(Exception):
    """The embedding API will not embed a text; the message says why."""


@dataclass(frozen=True, slots=True)
class Order:
    """The vector of a chunk, there or to come."""

    text_hash: UUID
    vector: asyncio.Future[Vector]
    wanted: Wanted | None
    """What is being paid for on behalf of this chunk; None if nothing is."""


@dataclass(slots=True)
class Wanted:
    """A text on its way to the API, and what came of it."""

    text_hash: UUID
    text: str
    vector: asyncio.Future[Vector]
    batch: int = 0
    """Which of the saga's requests carried it."""
    tokens: int = 0
    """Its share, by characters, of what that request was billed. Known once the vector is."""
    batch_usage: Usage = field(default_factory=Usage)
    """Of the whole batch."""


@dataclass(frozen=True, slots=True)
class _CompletedBatch:
    ordinal: int
    batch: Sequence[Wanted]
    answer: EmbeddedBatch

    def deliver(self) -> None:
        self._share_out()
        for place, wanted in enumerate(self.batch):
            if wanted.vector.done():
                continue  # whoever waited for it was cancelled
            if place in self.answer.refused:
                wanted.vector.set_exception(RefusedTextError(self.answer.refused[place]))
                wanted.vector.exception()  # whoever waits still gets it; that nobody waits any more is no fault
            else:
                wanted.vector.set_result(self.answer.vectors[place])

    def _share_out(self) -> None:
        """Divide the bill among the texts, so that the shares are whole and add up to it."""
        paid = [wanted for place, wanted in enumerate(self.batch) if place not in self.answer.refused]
        characters = sum(len(wanted.text) for wanted in paid)
        passed = 0
        for wanted in paid:
            before = self.answer.usage.tokens * passed // characters
            passed += len(wanted.text)
            wanted.tokens = self.answer.usage.tokens * passed // characters - before
        for wanted in self.batch:
            wanted.batch, wanted.batch_usage = self.ordinal, self.answer.usage


@dataclass(frozen=True, slots=True)
class _Unusable:
    """What a request took that failed."""

    characters: int
    usage: Usage
    is_nonsense: bool
    """The endpoint answered, and not with vectors of the model and width that it was asked for."""


class VectorResolver:
    """Vectors for one saga, by text hash.

    A text is looked up among what this and other sagas bought and did not publish yet, then among what stands at head.
    Both look-ups are skipped where there is nothing to find, so a first ingest does not pay for them. Whether another
    saga is at work is asked at the beginning and with each answer that is recorded: each finds what the other recorded.

    What is on its way to the API for two sagas at once is bought twice. For one to wait for the other, every text would
    have to be claimed before it is sent, and a waiter would have to guess when a claimer that is stopped is given up.

    An endpoint that was never seen to serve the model and width gets one text alone before the first batch. What the
    API bills is recorded whether or not its answer can be used.
    """

    def __init__(
        self,
        corpus: Corpus,
        embedder: Embedder,
        recipe: Recipe,
        saga: UUID,
        guard: SpendingGuard | None = None,
    ) -> None:
        self._guard = guard or SpendingGuard(corpus)
        self._guard.add(saga)
        self._corpus = corpus
        self._embedder = embedder
        self._recipe = recipe
        self._saga = saga
        self._ordered: WeakValueDictionary[UUID, asyncio.Future[Vector]] = WeakValueDictionary()
        self._bought_before = CompactHashSet()
        self._others_buy = False
        self._something_published = False
        self._published = PublishedVectors(corpus, recipe.embedding_dimensions)
        self._pending: list[Wanted] = []
        self._pending_bytes = 0
        self._batches = 0
        self._unrecorded: list[_CompletedBatch] = []
        self._unusable: list[_Unusable] = []
        self._requests: dict[asyncio.Task[None], UsageMeter] = {}
        self._is_served = embedder.is_free
        self._recording = asyncio.Lock()
        # Twice as many as the API may see at once: while answers are recorded, it is kept busy.
        self._under_way = asyncio.Semaphore(2 * embedder.settings.concurrency)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Find out where to look; requests will run as tasks of the group."""
        self._tasks = tasks
        await asyncio.to_thread(self.refresh_lookup_scope)

    def refresh_lookup_scope(self) -> None:
        """Find out again where to look: others may have bought or published since."""
        with self._corpus.database.transaction() as connection:
            self._is_served = self._is_served or embedding_cache.is_served(
                connection, self._embedder.endpoint, self._recipe.embedding
            )
            self._guard.look(connection)
            self._something_published = documents.has_chunks(connection, self._corpus.generation)
            self._others_buy = sagas.has_concurrent_ingest(
                connection, self._corpus.generation, self._saga
            ) or embedding_cache.has_staged_vectors(
                connection, self._corpus.generation, embedding=self._recipe.embedding, saga=self._saga
            )

    async def order(self, chunks: Sequence[Chunk]) -> list[Order]:
        """Vectors of some chunks, in their order. Waits while too many requests are under way."""
        texts = [(chunk.text_hash, chunk.text) for chunk in chunks]
        known = {text_hash: vector for text_hash, _ in texts if (vector := self._ordered.get(text_hash))}
        found = await self._find([text_hash for text_hash, _ in texts if text_hash not in known])
        orders: list[Order] = []
        for text_hash, text in texts:
            vector = known.get(text_hash)
            wanted: Wanted | None = None
            if vector is None:
                vector = known[text_hash] = self._ordered[text_hash] = asyncio.get_running_loop().create_future()
                if text_hash in found:
                    vector.set_result(found[text_hash])
                else:
                    wanted = Wanted(text_hash, text, vector)
            orders.append(Order(text_hash, vector, wanted))
            if wanted is not None:
                await self._want(wanted)
        return orders

    async def _find(self, hashes: list[UUID]) -> dict[UUID, Vector]:
        anywhere = self._others_buy or self._something_published
        if not (anywhere or any(text_hash in self._bought_before for text_hash in hashes)):
            return {}
        return await asyncio.to_thread(self._look_up, list(dict.fromkeys(hashes)))

    def _look_up(self, hashes: list[UUID]) -> dict[UUID, Vector]:
        staged = hashes if self._others_buy else [h for h in hashes if h in self._bought_before]
        found: dict[UUID, Vector] = {}
        with self._corpus.database.transaction() as connection:
            if staged:
                found = embedding_cache.staged_vectors(
                    connection,
                    self._corpus.generation,
                    embedding=self._recipe.embedding,
                    dimensions=self._recipe.embedding_dimensions,
                    text_hashes=staged,
                )
            rest = [text_hash for text_hash in hashes if text_hash not in found]
            places = self._published.places(connection, rest) if rest and self._something_published else []
        return found | self._published.read(places)

    async def _want(self, wanted: Wanted) -> None:
        self._pending.append(wanted)
        self._pending_bytes += len(wanted.text)
        settings = self._embedder.settings
        if len(self._pending) >= settings.batch_inputs or self._pending_bytes >= settings.batch_tokens:
            await self.flush()

    async def flush(self) -> None:
        """Send what is waiting for a batch to fill."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        while pending and not self._is_served:
            # Alone, and awaited. A text that is refused says nothing about the others, so the next one is tried.
            await self._buy(*await self._next_batch(pending[:1]))
            pending = pending[1:]
        for batch in pack(pending, self._embedder.settings, lambda wanted: wanted.text):
            self._tasks.create_task(self._buy(*await self._next_batch(batch)))

    async def close(self) -> None:
        """Send nothing more, and record what the requests under way bring within some seconds.

        For when the preparation fails or is cancelled: their answers are billed in any case.
        """
        for request, meter in self._requests.items():
            if not meter.requests:
                request.cancel()
        requests = list(self._requests)
        if requests:
            _, late = await asyncio.wait(requests, timeout=_LAST_ANSWERS_SECONDS)
            for request in late:
                request.cancel()
            # What they fail of is known: the first failure ends the preparation.
            await asyncio.gather(*requests, return_exceptions=True)

    async def _next_batch(self, batch: Sequence[Wanted]) -> tuple[int, Sequence[Wanted]]:
        await self._under_way.acquire()
        if not self._guard.is_off:
            await asyncio.to_thread(self._guard.reserve, sum(len(wanted.text) for wanted in batch))
        for wanted in batch:
            self._bought_before.add(wanted.text_hash)
        self._batches += 1
        return self._batches - 1, batch

    async def _buy(self, ordinal: int, batch: Sequence[Wanted]) -> None:
        """Send a batch. The request outlives whoever waits for it here, see `close`."""
        meter = UsageMeter()
        request = asyncio.create_task(self._request(ordinal, batch, meter))
        self._requests[request] = meter
        request.add_done_callback(self._requests.pop)
        try:
            await asyncio.shield(request)
        finally:
            self._under_way.release()

    async def _request(self, ordinal: int, batch: Sequence[Wanted], meter: UsageMeter) -> None:
        try:
            with boundary(Boundary.BATCH_SENT):
                answer = await self._embedder.embed([wanted.text for wanted in batch], meter)
        except IngestError as error:
            self._unusable.append(
                _Unusable(
                    sum(len(wanted.text) for wanted in batch), meter.usage, isinstance(error, EmbeddingResponseError)
                )
            )
            with suppress(UnavailableError):  # why the request failed is worth more than that it could not be recorded
                await self._record_all()
            raise
        self._unrecorded.append(_CompletedBatch(ordinal, batch, answer))
        await self._record_all()

    async def _record_all(self) -> None:
        """Record what has come in since the last time, in one transaction, then hand it out."""
        async with self._recording:
            answers, self._unrecorded = self._unrecorded, []
            unusable, self._unusable = self._unusable, []
            if answers or unusable:
                await asyncio.to_thread(self._record, answers, unusable)
            for answer in answers:
                answer.deliver()

    def _record(self, answers: Sequence[_CompletedBatch], unusable: Sequence[_Unusable]) -> None:
        with ExitStack() as effects:
            for _ in answers:
                effects.enter_context(boundary(Boundary.BATCH_RECORDED))
            connection = effects.enter_context(self._corpus.database.transaction())
            for failed in unusable:
                characters = failed.characters if failed.usage.tokens else 0
                embedding_cache.record_unusable(connection, self._saga, characters=characters, usage=failed.usage)
            self._note_served(connection, answers, unusable)
            self._others_buy = self._others_buy or sagas.has_concurrent_ingest(
                connection, self._corpus.generation, self._saga
            )
            for embedded in answers:
                answer = embedded.answer
                kept = [place for place in range(len(embedded.batch)) if place not in answer.refused]
                embedding_cache.record_batch(
                    connection,
                    self._saga,
                    ordinal=embedded.ordinal,
                    embedding=self._recipe.embedding,
                    text_hashes=[embedded.batch[place].text_hash for place in kept],
                    vectors=answer.vectors[kept],
                    characters=sum(len(embedded.batch[place].text) for place in kept),
                    usage=answer.usage,
                )
            self._settle(connection, answers, unusable)

    def _settle(
        self, connection: Connection, answers: Sequence[_CompletedBatch], unusable: Sequence[_Unusable]
    ) -> None:
        embedded = sum(len(wanted.text) for answer in answers for wanted in answer.batch)
        self._guard.settle(connection, embedded + sum(failed.characters for failed in unusable))

    def _note_served(
        self, connection: Connection, answers: Sequence[_CompletedBatch], unusable: Sequence[_Unusable]
    ) -> None:
        if self._embedder.is_free:
            return
        if any(failed.is_nonsense for failed in unusable):
            embedding_cache.forget_served(connection, self._embedder.endpoint, self._recipe.embedding)
        elif not self._is_served and any(len(embedded.batch) > len(embedded.answer.refused) for embedded in answers):
            embedding_cache.mark_served(connection, self._embedder.endpoint, self._recipe.embedding)
            self._is_served = True
