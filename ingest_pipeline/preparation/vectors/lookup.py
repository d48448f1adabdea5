"""Finds vectors that exist already: recorded by a saga and not published yet, or published at head."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import embedding_cache, sagas
from ingest_pipeline.postgres.ledger.embedding_cache import SpooledText
from ingest_pipeline.preparation.seen_texts import CompactHashSet
from ingest_pipeline.preparation.vectors.published_vectors import PublishedVectors
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
        self._requested = CompactHashSet()
        self._others_embed = False
        self._something_published = False
        self._spooled = SpooledVectors(corpus, recipe.embedding_dimensions)
        self._published = PublishedVectors(corpus, recipe.embedding_dimensions)

    def refresh(self, connection: Connection) -> None:
        """Find out whether other sagas have embedded anything, and whether anything is published."""
        generation, embedding = self._corpus.generation, self._recipe.embedding
        self._something_published = documents.has_chunks(connection, generation)
        self._others_embed = sagas.has_concurrent_ingest(
            connection, generation, self._saga
        ) or embedding_cache.has_staged_vectors(connection, generation, embedding=embedding, saga=self._saga)

    def notice_others(self, connection: Connection) -> None:
        """From now on, look among the vectors of other sagas too, if another saga is being prepared."""
        self._others_embed = self._others_embed or sagas.has_concurrent_ingest(
            connection, self._corpus.generation, self._saga
        )

    def add_requested(self, text_hash: UUID) -> None:
        """Record in memory that this saga embeds a text."""
        self._requested.add(text_hash)

    def may_find(self, hashes: Sequence[UUID]) -> bool:
        """Whether `find` could find any of these texts. Sends no query."""
        anywhere = self._others_embed or self._something_published
        return anywhere or any(text_hash in self._requested for text_hash in hashes)

    def find(self, hashes: Sequence[UUID]) -> dict[UUID, Vector]:
        """The vectors that exist, by text hash.

        Raises:
            UnavailableError: One of the stores does not answer.
        """
        staged = hashes if self._others_embed else [h for h in hashes if h in self._requested]
        with self._corpus.database.transaction() as connection:
            spooled = self._staged(connection, staged) if staged else []
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
        return embedding_cache.staged_texts(
            connection,
            self._corpus.generation,
            embedding=self._recipe.embedding,
            dimensions=self._recipe.embedding_dimensions,
            text_hashes=hashes,
        )
