"""Loads the enrichers of the user and calls them, from the parent process."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_pipeline.enrichment.base import Enrichment
from ingest_pipeline.enrichment.user_enricher_role import read_answer
from ingest_pipeline.errors import EnrichmentError
from ingest_pipeline.extensions.loader import Extension
from ingest_pipeline.extensions.pool import Hook

_ROLE = "ingest_pipeline.enrichment.user_enricher_role"
_RESULT_BYTES = 2 << 20


@dataclass(frozen=True)
class UserEnricher:
    """An enricher of the user."""

    hook: Hook

    @classmethod
    def load(cls, extension: Extension) -> UserEnricher:
        """Load an enricher.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        return cls(Hook.load(extension, _ROLE, ["enrich"], EnrichmentError, is_confined=False))

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
