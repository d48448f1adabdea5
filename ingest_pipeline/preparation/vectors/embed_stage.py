"""The second stage of a preparation: gives every chunk a vector, or a pending vector that is being embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice

from ingest_pipeline.preparation.batches import ChunkBatch
from ingest_pipeline.preparation.vectors.vector_resolver import VectorResolver
from ingest_pipeline.telemetry.spans import span


class EmbedStage:
    """Adds vectors to batches. It does not wait for the vectors that are being embedded; the write stage does.

    Args:
        resolver: The resolver of the saga, already started.
        source: Has the batches without vectors, and None at the end.
        target: Receives the batches with vectors, and None at the end.
    """

    def __init__(
        self,
        resolver: VectorResolver,
        source: asyncio.Queue[ChunkBatch | None],
        target: asyncio.Queue[ChunkBatch | None],
    ) -> None:
        self._resolver = resolver
        self._source = source
        self._target = target
        self._all_read = False

    async def run(self) -> None:
        """Resolve the vectors of every batch.

        Raises:
            SpendingLimitError: The limits of the run or the day allow no more requests.
            UnavailableError: One of the stores does not answer.
        """
        with span("embed"):
            while batches := await self._take():
                await self._resolve(batches)
            await self._resolver.flush()
        await self._target.put(None)

    async def _resolve(self, batches: Sequence[ChunkBatch]) -> None:
        vectors = iter(await self._resolver.resolve([chunk for batch in batches for chunk in batch.chunks]))
        for batch in batches:
            batch.vectors = list(islice(vectors, len(batch.chunks)))
            if self._target.full():
                # The writer may be waiting for a vector of a request that is not full yet.
                await self._resolver.flush()
            await self._target.put(batch)

    async def _take(self) -> list[ChunkBatch]:
        """All batches in the queue, at least one, so that one look-up serves many when look-ups are slow.

        An empty list means that all batches were taken.
        """
        batches: list[ChunkBatch] = []
        while not (self._all_read or (batches and self._source.empty())):
            batch = await self._source.get()
            if batch is None:
                self._all_read = True
            else:
                batches.append(batch)
        return batches
