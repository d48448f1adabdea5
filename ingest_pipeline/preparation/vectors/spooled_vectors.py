"""Reads vectors of recorded answers from the spool, or from the ledger if the store did not take them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.lance.files.spool import SpoolFileLostError, spool_name
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.ledger.embedding_cache import SpooledBatch, SpooledText
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import Vector, Vectors

log = get_logger(__name__)

# The next look-up often needs the same file, because texts come in the order in which they were embedded.
_CACHED_BYTES = 16 << 20


class SpooledVectors:
    """Vectors of one corpus that are recorded and not published.

    A file is used only if it has the recorded checksum. Otherwise its row is deleted, and its texts are embedded again.
    """

    def __init__(self, corpus: Corpus, dimensions: int) -> None:
        self._corpus = corpus
        self._dimensions = dimensions
        self._cached: OrderedDict[SpooledBatch, Vectors] = OrderedDict()

    def read(self, texts: Sequence[SpooledText]) -> dict[UUID, Vector]:
        """The vectors of texts, by hash. Texts of files that are gone or lost are missing from the result.

        Raises:
            UnavailableError: One of the stores does not answer.
        """
        found = {text.text_hash: np.frombuffer(text.vector, "<f4") for text in texts if text.vector is not None}
        for batch in {text.batch for text in texts if text.vector is None}:
            wanted = [text for text in texts if text.batch == batch]
            vectors = self._file(batch)
            if vectors is not None:
                # Copies, because a view would keep the whole file in memory.
                chosen = vectors[[text.index for text in wanted]]
                found |= {text.text_hash: vector for text, vector in zip(wanted, chosen, strict=True)}
        return found

    def _file(self, batch: SpooledBatch) -> Vectors | None:
        vectors = self._cached.pop(batch, None)
        if vectors is None:
            name = spool_name(batch.saga, batch.ordinal)
            try:
                vectors = self._corpus.table.spool.read(name, batch.checksum, self._dimensions)
            except SpoolFileLostError as error:
                self._forget(batch, name, error)
                return None
        self._cached[batch] = vectors
        while len(self._cached) > 1 and sum(each.nbytes for each in self._cached.values()) > _CACHED_BYTES:
            self._cached.popitem(last=False)
        return vectors

    def _forget(self, batch: SpooledBatch, name: str, error: SpoolFileLostError) -> None:
        with self._corpus.database.transaction() as connection:
            texts = embedding_cache.forget_lost_batch(connection, batch)
        if texts:  # otherwise the file was removed, because its vectors are published
            log.warning(
                "corpus %s: %d recorded vectors are lost, and their texts will be embedded again unless they are at "
                "head: file %s of the table at %s cannot be used: %s",
                self._corpus.generation,
                texts,
                name,
                self._corpus.table.uri,
                error,
            )
