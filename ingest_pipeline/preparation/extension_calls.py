"""Calls the user's parsers and enrichers. Durable results, and what was billed, are recorded before they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from ingest_pipeline.config.user_extensions import Extensions
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.enrichment.user_enricher_role import request
from ingest_pipeline.enrichment.user_enrichers import UserEnricher
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.user_parsers import UserParser
from ingest_pipeline.postgres import extension_results
from ingest_pipeline.postgres.extension_results import ResultKey
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.types import TextPiece, Usage


def _usage_of(enricher: UserEnricher, document: str, result: bytes) -> Usage:
    return enricher.read(document, result).usage


def _no_usage(_: bytes) -> Usage:
    return Usage()


@dataclass(frozen=True, slots=True)
class ExtensionCalls:
    """The calls for the documents of one saga, or of a plan.

    Args:
        extensions: The user's parsers, chunker and enrichers.
        corpus: The corpus whose ledger records results.
        saga: The saga that the usage is counted for. None: nothing is published, and no enricher is called.
        guard: The limits on tokens.
    """

    extensions: Extensions
    corpus: Corpus
    saga: UUID | None = None
    guard: SpendingGuard | None = None

    @property
    def enriches(self) -> bool:
        """Whether enrichers are called."""
        return self.saga is not None

    def parse(
        self, parser: UserParser, document: str, content_hash: str, content: bytes
    ) -> tuple[list[TextPiece], dict[str, object]]:
        """The pieces and columns that a parser finds in a document.

        Raises:
            DocumentError, ConfigurationError: As `_result`.
        """
        found = self._result(parser.hook, content, lambda: parser.parse(document, content), content_hash=content_hash)
        return parser.read(document, found)

    def enrich(
        self, document: str, content_hash: str, pieces: Sequence[TextPiece], columns: Mapping[str, object]
    ) -> dict[str, object]:
        """The given columns of a document, and those that the enrichers find.

        Raises:
            DocumentError, SpendingLimitError, ConfigurationError: As `_result`.
        """
        found, text = dict(columns), "".join(piece.text for piece in pieces)
        for enricher in self.extensions.enrichers:
            data = request(text, found)
            result = self._result(
                enricher.hook,
                data,
                partial(enricher.enrich, document, data),
                content_hash=content_hash,
                usage_of=partial(_usage_of, enricher, document),
            )
            found |= enricher.read(document, result).columns
        return found

    def _result(
        self,
        hook: Hook,
        request: bytes,
        call: Callable[[], bytes],
        *,
        content_hash: str,
        usage_of: Callable[[bytes], Usage] = _no_usage,
    ) -> bytes:
        """The result of an extension: the recorded one, or that of a call.

        Args:
            hook: The extension.
            request: The data that it gets. Its hash is part of the key of the recorded result.
            call: Calls it.
            content_hash: SHA-256 of the bytes of the document.
            usage_of: Reads the usage from a result. Raises a `DocumentError` if the result is invalid.

        Raises:
            DocumentError: The extension failed with the document.
            SpendingLimitError: The limits of the run or the day are exhausted.
            ConfigurationError: The child process of the extension does not start.
        """
        key = ResultKey(self.corpus.name, hook.name, hook.fingerprint, hashlib.sha256(request).hexdigest())
        if hook.is_durable:
            with self.corpus.database.transaction() as connection:
                recorded = extension_results.find_result(connection, key)
            if recorded is not None:
                return recorded
        if self.guard is not None and not hook.is_confined:
            self.guard.check_enrichment()
        with boundary(Boundary.EXTENSION_CALLED):
            result = call()
        usage = usage_of(result)
        if hook.is_durable or usage.tokens or usage.requests:
            self._record(key if hook.is_durable else None, content_hash, result, usage)
        return result

    def _record(self, key: ResultKey | None, content_hash: str, result: bytes, usage: Usage) -> None:
        with boundary(Boundary.RESULT_RECORDED), self.corpus.database.transaction() as connection:
            if key is not None:
                extension_results.record_result(connection, key, content_hash, result)
            if self.saga is not None:
                extension_results.count_usage(connection, self.saga, usage)
