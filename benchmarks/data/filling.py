"""A corpus that is large already: files and catalog rows as the engine makes them, vectors made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import psycopg

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.lance.changes import Change, StagedFragment
from ingest_pipeline.lance.chunk_table import TableRow, chunk_table
from ingest_pipeline.planning.plan import DocumentPlan
from ingest_pipeline.postgres.catalog import documents, prepared_documents
from ingest_pipeline.postgres.database import Connection
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.postgres.ledger.sagas import SagaKind
from ingest_pipeline.saga.publish import publish
from ingest_pipeline.types import ChunkRow, Recipe, SourceObject, text_hash

ROWS_PER_DOCUMENT = 100
_RECIPE = Recipe("filled", "filled", 1000, 0, "filled", 1)
# A publication writes its rows of chunks by one statement, which may take two minutes.
_DOCUMENTS_PER_PUBLICATION = 10_000
_DOCUMENTS_PER_FILE = 40  # about as many rows as the engine puts into a data file
RowMaker = Callable[[UUID, Sequence[int], int], Iterator[TableRow]]


def document_key(number: int) -> str:
    """Key of the n-th document."""
    return f"{number:06}.txt"


class _Filling:
    """The catalog side of a publication."""

    def __init__(
        self, corpus: str, saga: UUID, staged: Sequence[StagedFragment], files: dict[str, Sequence[int]]
    ) -> None:
        self._corpus = corpus
        self._saga = saga
        self._staged = staged
        self._files = files

    def write(self, connection: Connection, base: int, version: int) -> Change:  # noqa: ARG002  of the protocol
        numbers = [number for documents in self._files.values() for number in documents]
        plans = [
            DocumentPlan(key, key, SourceObject(key, "filled", 1, datetime.now(UTC)), None)
            for key in map(document_key, numbers)
        ]
        prepared_documents.insert_documents(
            connection, generation=self._corpus, saga=self._saga, recipe=_RECIPE, documents=plans
        )
        connection.execute(
            "UPDATE ingest_pipeline.document SET chunk_count = %s, character_count = 0, tokens = 0, seconds = 0, "
            "embedded = 0, cached = 0, requests = 0, retries = 0 WHERE saga = %s",
            (ROWS_PER_DOCUMENT, self._saga),
        )
        prepared_documents.add_chunks(
            connection, (chunk for number in numbers for chunk in chunk_rows(self._saga, number))
        )
        sagas.forget_fragments(connection, self._saga)
        return Change(self._staged)

    def record_fragments(self, connection: Connection, version: int, fragments: dict[str, int]) -> None:
        places = {document_key(number): [fragments[name]] for name, found in self._files.items() for number in found}
        documents.publish_documents(connection, self._saga, version, places)


def fill(corpus: Corpus, rows: int, dimensions: int, table_rows: RowMaker | None = None) -> None:
    """Put so many rows into an empty corpus, in documents of a hundred.

    Args:
        corpus: Which one.
        rows: How many.
        dimensions: Width of the vectors.
        table_rows: Makes the rows of some documents, given the saga, the documents and the width.
    """
    count = rows // ROWS_PER_DOCUMENT
    for first in range(0, count, _DOCUMENTS_PER_PUBLICATION):
        _publish(
            corpus, range(first, min(count, first + _DOCUMENTS_PER_PUBLICATION)), dimensions, table_rows or _table_rows
        )
    with psycopg.connect(corpus.database.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")  # as autovacuum does within a minute


def _publish(corpus: Corpus, numbers: Sequence[int], dimensions: int, make: RowMaker) -> None:
    """Put some documents into the corpus by one publication."""
    with corpus.database.transaction() as connection:
        saga = sagas.begin(
            connection, generation=corpus.generation, kind=SagaKind.INGEST, base_version=corpus.head().head_version
        )
    staged: list[StagedFragment] = []
    files: dict[str, Sequence[int]] = {}
    for first in range(0, len(numbers), _DOCUMENTS_PER_FILE):
        documents = numbers[first : first + _DOCUMENTS_PER_FILE]
        name = f"{saga}-{len(staged)}.lance"
        staged.append(corpus.table.stage(name, chunk_table(list(make(saga, documents, dimensions)))))
        files[name] = documents
    with corpus.database.transaction() as connection:
        sagas.mark_prepared(connection, saga)
    publish(corpus, saga, _Filling(corpus.generation, saga, staged, files))


def _table_rows(saga: UUID, documents: Sequence[int], dimensions: int) -> Iterator[TableRow]:
    random = np.random.default_rng(documents[0])
    for number in documents:
        vectors = random.standard_normal((ROWS_PER_DOCUMENT, dimensions), dtype=np.float32)
        for chunk, vector in zip(chunk_rows(saga, number), vectors, strict=True):
            yield TableRow(chunk, chunk.document, _text(number, chunk.ordinal), vector)


def chunk_rows(saga: UUID, document: int) -> Iterator[ChunkRow]:
    """The chunks of the n-th document, as the catalog has them."""
    for ordinal in range(ROWS_PER_DOCUMENT):
        text = _text(document, ordinal)
        number, start = UUID(int=document * ROWS_PER_DOCUMENT + ordinal), 40 * ordinal
        yield ChunkRow(number, document_key(document), ordinal, start, start + len(text), text_hash(text), saga)


def _text(document: int, ordinal: int) -> str:
    return f"Text of chunk {ordinal} of {document_key(document)}."
