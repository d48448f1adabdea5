"""Vectors for texts: found where they were paid for already, bought where they were not, and recorded at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np

from ingest_pipeline import catalog, ledger
from ingest_pipeline.catalog import TextPlace
from ingest_pipeline.corpus import Corpus
from ingest_pipeline.embedding import EmbeddedBatch, Embedder, pack
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance_table import one_of
from ingest_pipeline.ledger import Vector
from ingest_pipeline.model import Chunk, Recipe

# Requests that may be under way or being recorded, beyond those the API may see at once: recording must not idle it.
_RECORDING = 4


class RefusedTextError(Exception):
    """The embedding API will not embed a text; the message says why."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Vectors, there or to come."""

    vectors: list[asyncio.Future[Vector]]
    """One for each chunk asked for."""
    bought: int
    """How many of them are being paid for."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    text_hash: UUID
    text: str
    vector: asyncio.Future[Vector]


class VectorSupply:
    """Vectors for one saga, by text hash.

    A text is looked up among what this and other sagas bought and did not publish yet, then among what stands at head.
    Both look-ups are skipped where there is nothing to find, so a first ingest does not pay for them.
    """

    def __init__(self, corpus: Corpus, embedder: Embedder, recipe: Recipe, saga: UUID) -> None:
        self._corpus = corpus
        self._embedder = embedder
        self._recipe = recipe
        self._saga = saga
        self._ordered: WeakValueDictionary[UUID, asyncio.Future[Vector]] = WeakValueDictionary()
        self._bought_before: set[UUID] = set()
        self._others_left_vectors = False
        self._something_published = False
        self._pending: list[_Wanted] = []
        self._pending_bytes = 0
        self._batches = 0
        self._under_way = asyncio.Semaphore(embedder.settings.concurrency + _RECORDING)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Find out where to look; requests will run as tasks of the group."""
        self._tasks = tasks
        await asyncio.to_thread(self._find_out_where_to_look)

    def _find_out_where_to_look(self) -> None:
        with self._corpus.database.transaction() as connection:
            self._something_published = catalog.has_chunks(connection, self._corpus.name)
            self._others_left_vectors = ledger.has_staged_vectors(
                connection, self._corpus.name, embedding=self._recipe.embedding, saga=self._saga
            )

    async def order(self, chunks: Sequence[Chunk]) -> Orders:
        """Vectors of some chunks, in their order. Waits while too many requests are under way."""
        hashes = [chunk.text_hash for chunk in chunks]
        vectors = [self._ordered.get(text_hash) for text_hash in hashes]
        unknown = {text_hash for text_hash, vector in zip(hashes, vectors, strict=True) if vector is None}
        found = await asyncio.to_thread(self._look_up, list(unknown)) if unknown else {}
        texts = {text_hash: chunk.text for text_hash, chunk in zip(hashes, chunks, strict=True)}
        orders: dict[UUID, asyncio.Future[Vector]] = {}
        for text_hash in unknown:
            orders[text_hash] = self._ordered[text_hash] = asyncio.get_running_loop().create_future()
            if text_hash in found:
                orders[text_hash].set_result(found[text_hash])
        # In the order of the chunks, so that the first vectors a writer waits for come first.
        missing = [h for h in dict.fromkeys(hashes) if h in orders and h not in found]
        for text_hash in missing:
            await self._want(_Wanted(text_hash, texts[text_hash], orders[text_hash]))
        filled = [vector or orders[text_hash] for text_hash, vector in zip(hashes, vectors, strict=True)]
        return Orders(filled, len(missing))

    def _look_up(self, hashes: list[UUID]) -> dict[UUID, Vector]:
        staged = hashes if self._others_left_vectors else [h for h in hashes if h in self._bought_before]
        found: dict[UUID, Vector] = {}
        with self._corpus.database.transaction() as connection:
            if staged:
                found = ledger.staged_vectors(
                    connection,
                    self._corpus.name,
                    embedding=self._recipe.embedding,
                    dimensions=self._recipe.embedding_dimensions,
                    text_hashes=staged,
                )
            rest = [text_hash for text_hash in hashes if text_hash not in found]
            places: list[TextPlace] = []
            if rest and self._something_published:
                places = catalog.published_texts(connection, self._corpus.name, rest)
        return found | self._published(places)

    def _published(self, places: Sequence[TextPlace]) -> dict[UUID, Vector]:
        """Read the vectors of texts that stand at head from the fragments that hold them."""
        if not places:
            return {}
        fragments = sorted({number for place in places for number in place.fragments})
        predicate = one_of("text_hash", [str(place.text_hash) for place in places])
        rows = self._corpus.table.rows(places[0].head_version, ["text_hash", "vector"], predicate, fragments)
        width = self._recipe.embedding_dimensions
        flat = rows["vector"].combine_chunks().values.to_numpy(zero_copy_only=False).reshape(-1, width)
        return {UUID(text_hash): flat[row] for row, text_hash in enumerate(rows["text_hash"].to_pylist())}

    async def _want(self, wanted: _Wanted) -> None:
        self._pending.append(wanted)
        self._pending_bytes += len(wanted.text)
        settings = self._embedder.settings
        if len(self._pending) >= settings.batch_inputs or self._pending_bytes >= settings.batch_tokens:
            await self.flush()

    async def flush(self) -> None:
        """Send what is waiting for a batch to fill."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for batch in pack(pending, self._embedder.settings, lambda wanted: wanted.text):
            await self._under_way.acquire()
            self._bought_before.update(wanted.text_hash for wanted in batch)
            self._tasks.create_task(self._buy(self._batches, batch))
            self._batches += 1

    async def _buy(self, ordinal: int, batch: Sequence[_Wanted]) -> None:
        try:
            with boundary(Boundary.BATCH_SENT):
                answer = await self._embedder.embed([wanted.text for wanted in batch])
            await asyncio.to_thread(self._record, ordinal, batch, answer)
        finally:
            self._under_way.release()
        for position, wanted in enumerate(batch):
            if position in answer.refused:
                wanted.vector.set_exception(RefusedTextError(answer.refused[position]))
                wanted.vector.exception()  # whoever waits still gets it; that nobody waits any more is no fault
            else:
                wanted.vector.set_result(answer.vectors[position])

    def _record(self, ordinal: int, batch: Sequence[_Wanted], answer: EmbeddedBatch) -> None:
        kept = [position for position in range(len(batch)) if position not in answer.refused]
        with boundary(Boundary.BATCH_RECORDED), self._corpus.database.transaction() as connection:
            ledger.record_batch(
                connection,
                self._saga,
                ordinal=ordinal,
                embedding=self._recipe.embedding,
                text_hashes=[batch[position].text_hash for position in kept],
                vectors=np.ascontiguousarray(answer.vectors[kept]),
                tokens=answer.tokens,
                requests=answer.requests,
            )
