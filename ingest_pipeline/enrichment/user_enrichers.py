"""Loads the enrichers of the user and calls them, from the parent process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest_pipeline.enrichment.base import Enrichment
from ingest_pipeline.enrichment.user_enricher_role import read_answer
from ingest_pipeline.errors import EnrichmentError
from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.types import Price

_ROLE = "ingest_pipeline.enrichment.user_enricher_role"
_RESULT_BYTES = 2 << 20


@dataclass(frozen=True)
class UserEnricher:
    """An enricher of the user."""

    hook: Hook
    price: Price | None = None
    """Price of the tokens that it reports. None: none is configured."""

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
        return cls(Hook.load(extension, _ROLE, ["enrich"], EnrichmentError, is_confined=False), price)

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
        """
        return self.hook.checked(document, result, read_answer)
