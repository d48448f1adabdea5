"""Knows which texts have a recorded vector that is not published, and in which batch each vector is."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from threading import Lock
from uuid import UUID

from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.ledger.embedding_cache import BatchId

# With a million texts, a bucket has about sixty, and a search in it takes a microsecond.
_BUCKETS = 1 << 14
# A batch has up to 1,024 texts.
_BATCHES_AT_ONCE = 64


class RecordedTexts:
    """The recorded texts of a generation in one embedding, in 12 bytes each.

    A look-up by hash in Postgres would compare each wanted text with each recorded one, because an index over arrays
    is not used while other sagas write to it. So this class reads each batch once. A saga records its batches one after
    the other, with ascending ordinals.

    A text is identified by the first 64 bits of its hash. If two texts ever share them, the second one is looked up
    without success, and embedded.

    Args:
        generation: Generation of the sagas.
        embedding: Model and dimensions, as in the recipe.
    """

    def __init__(self, generation: str, embedding: str) -> None:
        self._generation = generation
        self._embedding = embedding
        self._lock = Lock()
        self._known: dict[UUID, int] = {}
        """The last known ordinal of each saga."""
        self._locations = _Locations()

    def __bool__(self) -> bool:
        """Whether any text is known."""
        return bool(self._known)

    def __contains__(self, text_hash: UUID) -> bool:
        return text_hash in self._locations

    def add(self, saga: UUID, ordinal: int, text_hashes: Iterable[UUID]) -> None:
        """Add a batch that this process recorded."""
        with self._lock:
            self._add(saga, ordinal, text_hashes)

    def refresh(self, connection: Connection) -> None:
        """Read the batches that were recorded since the last call."""
        with self._lock:
            self._refresh(connection)

    def reload(self, connection: Connection) -> None:
        """Read everything again. Call it when a batch is gone: its vectors are published, or its file is lost."""
        with self._lock:
            self._known, self._locations = {}, _Locations()
            self._refresh(connection)

    def batches_of(self, text_hashes: Iterable[UUID]) -> set[BatchId]:
        """The batches that have the texts which are known."""
        locations = self._locations
        return {found for text_hash in text_hashes if (found := locations.find(text_hash)) is not None}

    def _refresh(self, connection: Connection) -> None:
        is_complete = False
        while not is_complete:
            batches = embedding_cache.recorded_texts(
                connection, self._generation, self._embedding, known=self._known, limit=_BATCHES_AT_ONCE
            )
            is_complete = len(batches) < _BATCHES_AT_ONCE
            for (saga, ordinal), text_hashes in batches:
                self._add(saga, ordinal, text_hashes)

    def _add(self, saga: UUID, ordinal: int, text_hashes: Iterable[UUID]) -> None:
        self._locations.add((saga, ordinal), text_hashes)
        self._known[saga] = max(ordinal, self._known.get(saga, ordinal))


class _Locations:
    """The batch of each text. Readers need no lock: a text is added after its batch."""

    def __init__(self) -> None:
        self._batches: list[BatchId] = []
        self._buckets: dict[int, tuple[array[int], array[int]]] = {}

    def add(self, batch: BatchId, text_hashes: Iterable[UUID]) -> None:
        number = len(self._batches)
        self._batches.append(batch)
        for text_hash in text_hashes:
            key = text_hash.int >> 64
            bucket = self._buckets.get(key % _BUCKETS)
            if bucket is None:
                self._buckets[key % _BUCKETS] = array("Q", (key,)), array("I", (number,))
            elif key not in bucket[0]:
                bucket[1].append(number)
                bucket[0].append(key)

    def __contains__(self, text_hash: UUID) -> bool:
        key = text_hash.int >> 64
        bucket = self._buckets.get(key % _BUCKETS)
        return bucket is not None and key in bucket[0]

    def find(self, text_hash: UUID) -> BatchId | None:
        key = text_hash.int >> 64
        bucket = self._buckets.get(key % _BUCKETS)
        if bucket is None or key not in bucket[0]:
            return None
        return self._batches[bucket[1][bucket[0].index(key)]]
