"""Calls the user's parsers and enrichers. Durable results, and what was billed, are recorded before they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import UUID

from ingest_pipeline.config.user_extensions import Extensions
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.enrichment.base import ChunkEnrichment, EnrichableChunk, Enrichment
from ingest_pipeline.enrichment.user_enricher_role import BilledFailureError, request
from ingest_pipeline.enrichment.user_enrichers import UserEnricher
from ingest_pipeline.extensions.pool import Hook
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.parsing.user_parsers import UserParser
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import extension_results
from ingest_pipeline.postgres.ledger.extension_results import ExtensionCost, ResultKey
from ingest_pipeline.preparation.spending_guard import SpendingGuard
from ingest_pipeline.types import Chunk, TextPiece, Usage

_CHUNKS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a call took."""

    usage: Usage = field(default_factory=Usage)
    cost: ExtensionCost | None = None

    @property
    def is_something(self) -> bool:
        return bool(self.usage.tokens or self.usage.requests or self.cost)


def _spent_by(enricher: UserEnricher, document: str, result: bytes) -> _Spent:
    return _spent_for(enricher, enricher.read(document, result))


def _spent_for(enricher: UserEnricher, found: Enrichment | ChunkEnrichment) -> _Spent:
    price = enricher.price
    if found.cost is not None and found.currency is not None:
        return _Spent(found.usage, ExtensionCost(found.cost, found.currency))
    if price is None or not found.usage.tokens:
        return _Spent(found.usage)
    return _Spent(found.usage, ExtensionCost(price.cost(found.usage.tokens), price.currency, price.as_of))


def _nothing_spent(_: bytes) -> _Spent:
    return _Spent()


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
            if not enricher.enriches_documents:
                continue
            data = request(text, found)
            with self._counting_failures(enricher, document):
                result = self._result(
                    enricher.hook,
                    data,
                    partial(enricher.enrich, document, data),
                    content_hash=content_hash,
                    spent_by=partial(_spent_by, enricher, document),
                )
            found |= enricher.read(document, result).columns
        return found

    def enrich_chunks(self, document: str, content_hash: str, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks of a document with the columns that the enrichers find. Equal chunks are enriched once.

        Raises:
            DocumentError, SpendingLimitError, ConfigurationError: As `_result`.
        """
        enriched = list(chunks)
        for enricher in self.extensions.enrichers:
            if enricher.enriches_chunks:
                found = self._chunk_columns(enricher, document, content_hash, chunks)
                enriched = [
                    replace(chunk, columns={**chunk.columns, **found[_input_hash(chunk)]}) for chunk in enriched
                ]
        return enriched

    def _chunk_columns(
        self, enricher: UserEnricher, document: str, content_hash: str, chunks: Sequence[Chunk]
    ) -> dict[str, Mapping[str, object]]:
        """The columns of chunks by the hash of their input: the recorded ones, and those of calls."""
        hook = enricher.hook
        key = ResultKey(self.corpus.name, hook.name, hook.fingerprint, "")
        wanted = {_input_hash(chunk): chunk for chunk in chunks}
        found: dict[str, Mapping[str, object]] = {}
        if hook.is_durable and wanted:
            hashes = {hashed: chunk.text_hash for hashed, chunk in wanted.items()}
            with self.corpus.database.transaction() as connection:
                recorded = extension_results.find_chunk_results(connection, key, content_hash, hashes)
            found = {hashed: json.loads(result) for hashed, result in recorded.items()}
        for some in _in_batches([hashed for hashed in wanted if hashed not in found]):
            if self.guard is not None:
                self.guard.check_enrichment()
            with self._counting_failures(enricher, document), boundary(Boundary.EXTENSION_CALLED):
                batch = [EnrichableChunk(wanted[hashed].text, wanted[hashed].heading) for hashed in some]
                enrichment = enricher.enrich_chunks(document, batch)
            new = dict(zip(some, enrichment.columns, strict=True))
            spent = _spent_for(enricher, enrichment)
            if hook.is_durable or spent.is_something:
                hashes = {hashed: wanted[hashed].text_hash for hashed in some}
                self._record_chunks(key, content_hash, hashes, new if hook.is_durable else {}, spent)
            found |= new
        return found

    def _record_chunks(
        self,
        key: ResultKey,
        content_hash: str,
        hashes: Mapping[str, UUID],
        columns: Mapping[str, Mapping[str, object]],
        spent: _Spent,
    ) -> None:
        results = {hashed: json.dumps(one).encode() for hashed, one in columns.items()}
        with boundary(Boundary.RESULT_RECORDED), self.corpus.database.transaction() as connection:
            if results:
                extension_results.record_chunk_results(connection, key, content_hash, hashes, results)
            self._count(connection, key.extension, spent)

    def _result(
        self,
        hook: Hook,
        request: bytes,
        call: Callable[[], bytes],
        *,
        content_hash: str,
        spent_by: Callable[[bytes], _Spent] = _nothing_spent,
    ) -> bytes:
        """The result of an extension: the recorded one, or that of a call.

        Args:
            hook: The extension.
            request: The data that it gets. Its hash is part of the key of the recorded result.
            call: Calls it.
            content_hash: SHA-256 of the bytes of the document.
            spent_by: Reads from a result what the call took. Raises a `DocumentError` if the result is invalid.

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
        spent = spent_by(result)
        if hook.is_durable or spent.is_something:
            self._record(key, content_hash, result if hook.is_durable else None, spent)
        return result

    def _record(self, key: ResultKey, content_hash: str, result: bytes | None, spent: _Spent) -> None:
        with boundary(Boundary.RESULT_RECORDED), self.corpus.database.transaction() as connection:
            if result is not None:
                extension_results.record_result(connection, key, content_hash, result)
            self._count(connection, key.extension, spent)

    @contextmanager
    def _counting_failures(self, enricher: UserEnricher, document: str) -> Generator[None]:
        """Count what an enricher was billed before it failed."""
        try:
            yield
        except BilledFailureError as failure:
            with boundary(Boundary.RESULT_RECORDED), self.corpus.database.transaction() as connection:
                self._count(connection, enricher.hook.name, _spent_for(enricher, failure.billed))
            raise enricher.hook.failed(document, failure) from None

    def _count(self, connection: Connection, extension: str, spent: _Spent) -> None:
        if self.saga is not None and spent.is_something:
            extension_results.count_usage(connection, self.saga, extension, spent.usage, spent.cost)


def _input_hash(chunk: Chunk) -> str:
    """Hash of all that an enricher gets of a chunk. Neither its position nor its document is part of it."""
    return hashlib.sha256(json.dumps((chunk.text, chunk.heading)).encode()).hexdigest()


def _in_batches(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(hashes), _CHUNKS_PER_CALL):
        yield hashes[start : start + _CHUNKS_PER_CALL]
