"""Loads the enrichers of the user and calls them, from the parent process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest_pipeline.enrichment.base import ChunkEnrichment, EnrichableChunk, Enrichment
from ingest_pipeline.enrichment.user_enricher_role import read_answer, read_answer_of_chunks, request_of_chunks
from ingest_pipeline.errors import ConfigurationError, EnrichmentError
from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.types import Price

_ROLE = "ingest_pipeline.enrichment.user_enricher_role"
_RESULT_BYTES = 2 << 20
_CHUNKS_RESULT_BYTES = 8 << 20
_METHODS = ("enrich", "enrich_chunks")


@dataclass(frozen=True)
class UserEnricher:
    """An enricher of the user."""

    hook: Hook
    price: Price | None = None
    """Price of the tokens that it reports. None: none is configured."""
    methods: tuple[str, ...] = _METHODS[:1]
    """What it enriches: documents, chunks or both."""

    @classmethod
    def load(cls, extension: Extension, prices: Sequence[Price] = ()) -> UserEnricher:
        """Load an enricher.

        Args:
            extension: Names it.
            prices: The configured prices, by dotted path of the class.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        price = next((price for price in prices if price.model == extension.path), None)
        loaded = extension.load()
        methods = tuple(name for name in _METHODS if getattr(loaded, name, None) is not None)
        if not methods:
            raise ConfigurationError(
                f"INGEST_ENRICHER: {extension.path} has neither 'enrich' nor 'enrich_chunks', and every enricher must "
                "have one of them",
                "Add it; docs/how-to/user_enricher.md shows the whole protocol.",
            )
        return cls(Hook.load(extension, _ROLE, methods, EnrichmentError, is_confined=False), price, methods)

    @property
    def enriches_documents(self) -> bool:
        """Whether it computes columns of documents."""
        return "enrich" in self.methods

    @property
    def enriches_chunks(self) -> bool:
        """Whether it computes columns of chunks."""
        return "enrich_chunks" in self.methods

    def enrich(self, document: str, request: bytes) -> bytes:
        """Run the enricher on a document. `read` reads the result.

        Args:
            document: Its key.
            request: Its text and columns, as `user_enricher_role.request` wrote them.

        Raises:
            DocumentError: The enricher failed with this document.
            ConfigurationError: Its child process does not start.
        """
        return self.hook.run(document, {"key": "" if self.hook.is_durable else document}, request, _RESULT_BYTES)

    def read(self, document: str, result: bytes) -> Enrichment:
        """The enrichment of a result.

        Raises:
            DocumentError: The result is not an enrichment.
            BilledFailureError: The enricher failed with the document after it was billed.
        """
        return self.hook.checked(document, result, read_answer)

    def enrich_chunks(self, document: str, chunks: Sequence[EnrichableChunk]) -> ChunkEnrichment:
        """Run the enricher on some chunks of a document.

        Raises:
            DocumentError: The enricher failed with these chunks.
            BilledFailureError: The same after it was billed.
            ConfigurationError: Its child process does not start.
        """
        result = self.hook.run(document, {"key": "", "chunks": True}, request_of_chunks(chunks), _CHUNKS_RESULT_BYTES)
        return self.hook.checked(document, result, lambda data: read_answer_of_chunks(data, len(chunks)))
