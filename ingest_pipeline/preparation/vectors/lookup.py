"""Finds vectors that exist already: recorded by a saga and not published yet, or published at head."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.embedding_cache import SpooledText
from ingest_pipeline.preparation.vectors.published_vectors import PublishedVectors
from ingest_pipeline.preparation.vectors.recorded_texts import RecordedTexts
from ingest_pipeline.preparation.vectors.spooled_vectors import SpooledVectors
from ingest_pipeline.types import Recipe, Vector


class VectorLookup:
    """Looks for vectors only where there may be some, so that a first ingest makes no look-up.

    Args:
        corpus: The corpus whose vectors are looked up.
        recipe: Names the model and the dimensions.
        saga: The saga that is being prepared.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe, saga: UUID) -> None:
        self._corpus = corpus
        self._recipe = recipe
        self._saga = saga
        self._has_concurrent = False
        self._something_published = False
        self._recorded = RecordedTexts(corpus.generation, recipe.embedding)
        self._spooled = SpooledVectors(corpus, recipe.embedding_dimensions)
        self._published = PublishedVectors(corpus, recipe.embedding_dimensions)

    def refresh(self, connection: Connection) -> None:
        """Find out what sagas have recorded, and whether another one is being prepared or anything is published."""
        # Recorded answers first: a saga that publishes in between deletes them, and then something is published.
        self._recorded.refresh(connection)
        self._something_published = documents.has_chunks(connection, self._corpus.generation)
        self._has_concurrent = sagas.has_concurrent_ingest(connection, self._corpus.generation, self._saga)

    def notice_others(self, connection: Connection) -> None:
        """From now on, look among the vectors of other sagas too, if another saga is being prepared."""
        self._has_concurrent = self._has_concurrent or sagas.has_concurrent_ingest(
            connection, self._corpus.generation, self._saga
        )

    def add_recorded(self, ordinal: int, text_hashes: Sequence[UUID]) -> None:
        """Add a batch that this saga has recorded."""
        self._recorded.add(self._saga, ordinal, text_hashes)

    def may_find(self, hashes: Sequence[UUID]) -> bool:
        """Whether `find` could find any of these texts. Sends no query."""
        anywhere = self._has_concurrent or self._something_published
        return anywhere or any(text_hash in self._recorded for text_hash in hashes)

    def find(self, hashes: Sequence[UUID]) -> dict[UUID, Vector]:
        """The vectors that exist, by text hash.

        Raises:
            UnavailableError: One of the stores does not answer.
        """
        with self._corpus.database.transaction() as connection:
            if self._has_concurrent:
                self._recorded.refresh(connection)
            spooled = self._staged(connection, hashes)
            there = {text.text_hash for text in spooled}
            rest = [text_hash for text_hash in hashes if text_hash not in there]
            places = self._published.places(connection, rest) if rest and self._something_published else []
        found = self._spooled.read(spooled) | self._published.read(places)
        unread = there - found.keys()
        if unread:
            # Their rows are gone: another saga has published them meanwhile, or their files are lost.
            self._something_published = True
            found |= self.find(list(unread))
        return found

    def _staged(self, connection: Connection, hashes: Sequence[UUID]) -> list[SpooledText]:
        known = [text_hash for text_hash in hashes if text_hash in self._recorded]
        found = self._in_batches(connection, known)
        if len(found) < len(known):
            # A batch is gone, because another saga has published it or its file is lost. Another one may have the text.
            self._something_published = True
            self._recorded.reload(connection)
            found = self._in_batches(connection, known)
        return found

    def _in_batches(self, connection: Connection, hashes: Sequence[UUID]) -> list[SpooledText]:
        batches = self._recorded.batches_of(hashes)
        if not batches:
            return []
        dimensions = self._recipe.embedding_dimensions
        return embedding_cache.staged_texts(connection, batches, dimensions=dimensions, text_hashes=hashes)
