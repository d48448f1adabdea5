"""Reads vectors of published texts from the table versions and fragments that contain them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import TableDamagedError, VersionGoneError
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache
from ingest_pipeline.postgres.ledger.embedding_cache import TextLocation
from ingest_pipeline.types import Vector


class PublishedVectors:
    """Vectors of one corpus by text hash.

    If a fragment is damaged, its texts are looked up in other fragments, and the damaged one is skipped from then on.
    """

    def __init__(self, corpus: Corpus, dimensions: int) -> None:
        self._corpus = corpus
        self._dimensions = dimensions
        self._damaged: set[int] = set()

    def places(self, connection: Connection, hashes: Sequence[UUID]) -> list[TextLocation]:
        """The versions and fragments where the catalog has rows of the texts."""
        return embedding_cache.published_texts(connection, self._corpus.generation, hashes, without=self._damaged)

    def read(self, places: Sequence[TextLocation]) -> dict[UUID, Vector]:
        """The vectors of texts, by hash. Texts whose rows are gone or cannot be read are missing from the result.

        Raises:
            UnavailableError: One of the stores does not answer.
        """
        known = len(self._damaged)
        found: dict[UUID, Vector] = {}
        for version in {place.version for place in places}:
            found |= self._at(version, [place for place in places if place.version == version])
        if len(self._damaged) > known:
            missing = [place.text_hash for place in places if place.text_hash not in found]
            with self._corpus.database.transaction() as connection:
                elsewhere = self.places(connection, missing)
            found |= self.read(elsewhere)
        return found

    def _at(self, version: int, places: Sequence[TextLocation]) -> dict[UUID, Vector]:
        fragments = {number for place in places for number in place.fragments} - self._damaged
        predicate = one_of("text_hash", [str(place.text_hash) for place in places])
        try:
            rows = self._corpus.table.rows(version, ["text_hash", "vector"], predicate, sorted(fragments))
        except VersionGoneError:
            return {}  # retention has deleted the version since it was looked up
        except TableDamagedError as error:
            self._damaged |= error.fragments
            return self._at(version, places)
        flat = rows["vector"].combine_chunks().values.to_numpy(zero_copy_only=False).reshape(-1, self._dimensions)
        sound = np.isfinite(flat).all(axis=1)
        return {UUID(name): flat[row] for row, name in enumerate(rows["text_hash"].to_pylist()) if sound[row]}
