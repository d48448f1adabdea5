"""Finds or makes the vectors of chunks: existing vectors are looked up, the other texts are embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID
from weakref import WeakValueDictionary

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.preparation.vectors.lookup import VectorLookup
from ingest_pipeline.preparation.vectors.requests import EmbeddingRequest, EmbeddingRequests, PendingVector
from ingest_pipeline.telemetry.spans import POSTGRES, stage
from ingest_pipeline.types import Chunk, Recipe, Vector, text_hash


class VectorResolver:
    """Resolves the vectors of one saga's chunks, by text hash.

    A text is looked up among the vectors that this and other sagas have embedded and not published yet, then among
    those at head. Both look-ups are skipped where there is nothing to find, so a first ingest does not pay for them.
    Whether another saga is being prepared is checked at the beginning and with every recorded answer, so that each of
    two sagas finds what the other has recorded.

    A text that two sagas request at the same time is embedded twice. To avoid that, every text would have to be claimed
    before it is sent, and a saga that waits would have to guess when a stopped claimer is dead.

    Args:
        corpus: The corpus of the chunks.
        embedder: Shared by all preparations of the process.
        recipe: Names the model and the dimensions.
        saga: The saga under which answers are recorded.
        guard: The limits of the run. None: tokens are not limited.
    """

    def __init__(
        self, corpus: Corpus, embedder: EmbeddingClient, recipe: Recipe, saga: UUID, guard: SpendingGuard | None = None
    ) -> None:
        guard = guard or SpendingGuard(corpus)
        guard.add(saga)
        self._corpus = corpus
        self._lookup = VectorLookup(corpus, recipe, saga)
        self._requests = EmbeddingRequests(corpus, embedder, recipe, saga, guard=guard, lookup=self._lookup)
        # Vectors that are still referenced by a batch or a request.
        self._known: WeakValueDictionary[UUID, asyncio.Future[Vector]] = WeakValueDictionary()

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Check where vectors may exist. Requests run as tasks of the group."""
        self._requests.start(tasks)
        await asyncio.to_thread(self.refresh_lookup_scope)

    def refresh_lookup_scope(self) -> None:
        """Check again where vectors may exist: other sagas may have embedded or published since."""
        with self._corpus.database.transaction() as connection:
            self._requests.refresh(connection)
            self._lookup.refresh(connection)

    async def resolve(self, chunks: Sequence[Chunk]) -> list[PendingVector]:
        """The vectors of some chunks, in their order. Waits while too many requests are in progress."""
        texts = [(text_hash(text), text) for text in (chunk.embedded_text for chunk in chunks)]
        known = {hashed: vector for hashed, _ in texts if (vector := self._known.get(hashed))}
        found = await self._find([hashed for hashed, _ in texts if hashed not in known])
        pending: list[PendingVector] = []
        for hashed, text in texts:
            vector = known.get(hashed)
            request: EmbeddingRequest | None = None
            if vector is None:
                vector = known[hashed] = self._known[hashed] = asyncio.get_running_loop().create_future()
                if hashed in found:
                    vector.set_result(found[hashed])
                else:
                    request = EmbeddingRequest(hashed, text, vector)
            pending.append(PendingVector(hashed, vector, request))
            if request is not None:
                await self._requests.add(request)
        return pending

    async def flush(self) -> None:
        """Send the texts that wait for a batch to become full."""
        await self._requests.flush()

    async def close(self) -> None:
        """Send no more requests, and record the answers that arrive within some seconds."""
        await self._requests.close()

    async def _find(self, hashes: list[UUID]) -> dict[UUID, Vector]:
        if not self._lookup.may_find(hashes):
            return {}
        wanted = list(dict.fromkeys(hashes))
        with stage("lookup", attributes={**POSTGRES, "ingest_pipeline.texts": len(wanted)}) as span:
            found = await asyncio.to_thread(self._lookup.find, wanted)
            span.set_attribute("ingest_pipeline.found", len(found))
        return found
