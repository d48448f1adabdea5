"""What a publication brought, document by document, as a person wants to see it: read back from both stores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.ingestion.ingest import Publication
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.postgres import catalog
from ingest_pipeline.postgres.catalog import DocumentRow
from ingest_pipeline.types import ChunkRow, SourceObject, Usage

_SAMPLED = 3
_COLUMNS = ["document", "saga", "ordinal", "start_offset", "end_offset", "text"]


@dataclass(frozen=True, slots=True)
class ChunkSample:
    """One of a document's first chunks, with its text."""

    ordinal: int
    start_offset: int
    end_offset: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentView:
    """One document of a publication."""

    publication: Publication
    partition: str
    source: SourceObject
    characters: int
    usage: Usage
    """What embedding it took."""
    chunks: Sequence[ChunkRow]
    samples: Sequence[ChunkSample]


def view_publication(corpus: Corpus, publication: Publication) -> list[DocumentView]:
    """The documents that a publication brought, as readers at its version see them."""
    keys = [document.plan.key for document in publication.documents]
    chunks: defaultdict[str, list[ChunkRow]] = defaultdict(list)
    with corpus.database.transaction() as connection:
        for chunk in catalog.chunks_at(connection, corpus.generation, publication.version, keys):
            chunks[chunk.document].append(chunk)
        rows = catalog.documents_at(connection, corpus.generation, publication.version, keys)
    samples = _samples(corpus, publication.version, publication.saga, rows)
    views: list[DocumentView] = []
    for document in publication.documents:
        key, source = document.plan.key, document.plan.source
        assert source is not None  # noqa: S101  a removal is not among the documents
        views.append(
            DocumentView(
                publication,
                document.plan.partition,
                source,
                document.characters,
                document.usage,
                chunks[key],
                samples[key],
            )
        )
    return views


def sample_document(corpus: Corpus, version: int, key: str) -> list[ChunkSample]:
    """The first chunks of a document at a version, none if it has none there."""
    with corpus.database.transaction() as connection:
        rows = catalog.documents_at(connection, corpus.generation, version, [key])
    fragments = [number for row in rows for number in row.fragments]
    return _read(corpus, version, f"ordinal < {_SAMPLED} AND {one_of('document', [key])}", fragments)[key]


def _samples(
    corpus: Corpus, version: int, saga: UUID, documents: Sequence[DocumentRow]
) -> defaultdict[str, list[ChunkSample]]:
    predicate = f"ordinal < {_SAMPLED} AND saga = '{saga}'"
    # Not in all of the table: another file of it may be damaged, and it may be large.
    found = _read(corpus, version, predicate, sorted({number for row in documents for number in row.fragments}))
    if all(row.key in found for row in documents if row.chunk_count):
        return found
    # A compaction came since, and the catalog has the rows where they are now.
    return _read(corpus, version, predicate, None)


def _read(
    corpus: Corpus, version: int, predicate: str, fragments: Sequence[int] | None
) -> defaultdict[str, list[ChunkSample]]:
    found: defaultdict[str, list[ChunkSample]] = defaultdict(list)
    rows = corpus.table.rows(version, _COLUMNS, predicate, fragments)
    for row in rows.sort_by("ordinal").to_pylist():
        sample = ChunkSample(row["ordinal"], row["start_offset"], row["end_offset"], row["text"])
        found[row["document"]].append(sample)
    return found
