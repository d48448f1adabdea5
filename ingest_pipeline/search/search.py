"""Reading at head: chunks by meaning, by words, or by both, in documents that the catalog chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns, Values
from ingest_pipeline.columns.values import Value
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.embedding.base import EmbeddingClient
from ingest_pipeline.errors import ConfigurationError, CorpusMismatchError
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.postgres.catalog import documents, history
from ingest_pipeline.postgres.catalog.corpora import read_access
from ingest_pipeline.postgres.catalog.documents import DocumentRow
from ingest_pipeline.search.access import Restriction, restriction
from ingest_pipeline.search.base import Reranker
from ingest_pipeline.search.expand import Expand, Passage, passages
from ingest_pipeline.search.filters import DocumentFilter, parse_filter
from ingest_pipeline.search.ranking import Ranking
from ingest_pipeline.types import SearchMode, embedded_text

_COLUMNS = [
    "id",
    "document",
    "ordinal",
    "start_offset",
    "end_offset",
    "page",
    "last_page",
    "heading",
    "text",
    "saga",
]
_EVERYTHING = DocumentFilter()
# The candidates that a reranker orders, at least.
_RERANKED = 50
_SCORES = {"vector": "_distance", "text": "_score", "hybrid": "_relevance_score"}


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that matches a question, and its location."""

    document: str
    start_offset: int
    end_offset: int
    score: float
    """Higher is better. By vector: cosine similarity to the question, 1 is the same direction. By text: BM25. Hybrid:
    both, scaled and weighted; see `search.fusion`."""
    similarity: float | None
    """Cosine similarity to the question, 1 is the same direction. None: the search was by text."""
    bm25: float | None
    """How well its words match. None: it was not among the best by words, or the search was by vector."""
    rerank_score: float | None
    """The judgement of the reranker, which then decides the order. None: there was none."""
    text: str
    page: int | None
    """Page on which it begins, from 1. None: the format has no pages."""
    last_page: int | None
    heading: str | None
    """The headings above it, outermost first, separated by ` > `."""
    ordinal: int
    id: str
    partition: str
    last_modified: datetime
    saga: str
    """The saga that published the document."""
    published_version: int
    """The version that this publication made."""
    version: int
    """The head that was read."""
    columns: Values = field(default_factory=dict[str, Value])
    """Values of the document's columns and of the chunk's own."""
    passage: Passage | None = None
    """The chunk with the text around it, if the search expands its hits."""


async def search(
    corpus: Corpus,
    embedder: EmbeddingClient | None,
    question: str,
    limit: int,
    *,
    mode: SearchMode = "vector",
    where: DocumentFilter = _EVERYTHING,
    principals: Sequence[str] | None = None,
    use_index: bool = True,
    expand: Expand | None = None,
    reranker: Reranker | None = None,
) -> list[Hit]:
    """Find the best chunks at head, best first. Both stores are read at one head, which the hits name.

    Args:
        corpus: The corpus to search.
        embedder: Embeds the question; not used by mode ``text``.
        question: The question in words.
        limit: Chunks at most.
        mode: By ``vector``, by the words of the ``text``, or ``hybrid``, which fuses both rankings.
        where: Search these documents only.
        principals: Search the documents that one of them may find. A corpus with restricted access needs them.
        use_index: If False, a search by vector compares with every chunk.
        expand: The text that hits bring with them: their ``neighbours``, or the whole ``section``.
        reranker: Decides the order of the best candidates of the search.

    Raises:
        ConfigurationError: The corpus demands principals, or does not restrict access.
        EmbeddingUnavailableError, EmbeddingAccessError: The question could not be embedded.
        CorpusMismatchError: The embedder's model is not the corpus'.
        RerankerUnavailableError, RerankerAccessError, RerankerResponseError: The reranker gave no scores.
        TextIndexMissingError: The corpus is large, and its index of words was never built.
    """
    vector = None if mode == "text" else await _embedded(corpus, embedder, question)
    candidates = limit if reranker is None else max(limit, _RERANKED)
    hits, known = _find(
        corpus, question, vector, candidates, mode=mode, where=where, principals=principals, use_index=use_index
    )
    if reranker is not None:
        hits = await _reranked(reranker, question, hits)
    hits = hits[:limit]
    return hits if expand is None else _expanded(corpus, hits, known, expand)


def find(
    corpus: Corpus,
    question: str,
    vector: npt.NDArray[np.float32] | None,
    limit: int,
    *,
    mode: SearchMode,
    where: DocumentFilter = _EVERYTHING,
    principals: Sequence[str] | None = None,
    use_index: bool = True,
) -> list[Hit]:
    """Search as `search` does, with a question that is embedded already.

    Args:
        corpus: The corpus to search.
        question: The question in words.
        vector: The embedded question, shape (dimensions,); None for mode ``text``.
        limit: Chunks at most.
        mode: See `search`.
        where: Search these documents only.
        principals: See `search`.
        use_index: If False, a search by vector compares with every chunk.
    """
    hits, _ = _find(corpus, question, vector, limit, mode=mode, where=where, principals=principals, use_index=use_index)
    return hits


def _find(
    corpus: Corpus,
    question: str,
    vector: npt.NDArray[np.float32] | None,
    limit: int,
    *,
    mode: SearchMode,
    where: DocumentFilter,
    principals: Sequence[str] | None,
    use_index: bool,
) -> tuple[list[Hit], dict[str, DocumentRow]]:
    """The hits, and the catalog's rows of their documents by key."""
    head = corpus.head().head_version
    allowed = restriction_of(corpus, head, principals)
    if allowed.finds_nothing:
        return [], {}
    predicates = [*where.predicates, *([allowed.predicate] if allowed.predicate else [])]
    if where.needs_catalog:
        with corpus.database.transaction() as connection:
            keys = history.matching_documents(connection, corpus.generation, head, where.values())
        if not keys:
            return [], {}
        predicates.append(one_of("document", keys))
    predicate = " AND ".join(f"({one})" for one in predicates) or None
    of_chunks = table_columns(corpus.table.at(head).schema).of_chunks
    names = [*_COLUMNS, *of_chunks.names]
    ranking = Ranking(limit, mode, names, predicate, use_index)
    found = ranking.of(partial(corpus.table.read, head), question, vector)
    rows = found.best.slice(0, limit).to_pylist()
    scores = _Scores(found.parts)
    known = _documents(corpus, head, rows)
    # The table's filter allowed these rows. The catalog must allow them too.
    rows = [row for row in rows if allowed.allows(known[row["document"]].columns)]
    if mode == "hybrid" and vector is not None:
        scores.add_missing(corpus, head, rows, known, vector)
    return [_hit(row, known[row["document"]], head, mode, scores, of_chunks=of_chunks) for row in rows], known


class _Scores:
    """Similarity and BM25 of the rows of all rankings, by the id of the row."""

    def __init__(self, rankings: Sequence[pa.Table]) -> None:
        self.similarity: dict[str, float] = {}
        self.bm25: dict[str, float] = {}
        for ranking in rankings:
            ids = ranking["id"].to_pylist()
            if "_distance" in ranking.column_names:
                self.similarity |= {
                    key: 1.0 - float(one) for key, one in zip(ids, ranking["_distance"].to_pylist(), strict=True)
                }
            if "_score" in ranking.column_names:
                self.bm25 |= {key: float(one) for key, one in zip(ids, ranking["_score"].to_pylist(), strict=True)}

    def add_missing(
        self,
        corpus: Corpus,
        head: int,
        rows: Sequence[dict[str, Any]],
        known: Mapping[str, DocumentRow],
        vector: npt.NDArray[np.float32],
    ) -> None:
        """Compare the question with the rows that only the words have found."""
        missing = [row for row in rows if row["id"] not in self.similarity]
        if not missing:
            return
        keys = {row["document"] for row in missing}
        fragments = {number for key in keys for number in known[key].fragments}
        predicate = f"{one_of('document', keys)} AND {one_of('id', (row['id'] for row in missing))}"
        found = corpus.table.rows(head, ["id", "vector"], predicate, fragments)
        for key, other in zip(found["id"].to_pylist(), found["vector"].to_pylist(), strict=True):
            lengths = float(np.linalg.norm(vector) * np.linalg.norm(other))
            self.similarity[key] = float(np.dot(vector, np.array(other, np.float32))) / lengths if lengths else 0.0


async def _reranked(reranker: Reranker, question: str, hits: Sequence[Hit]) -> list[Hit]:
    """The hits in the order of the reranker. Its model sees the headings of a chunk too."""
    texts = [hit.text if hit.heading is None else embedded_text(hit.heading, hit.text) for hit in hits]
    judged = zip(hits, await reranker.rerank(question, texts), strict=True)
    return sorted((replace(hit, rerank_score=score) for hit, score in judged), key=lambda hit: -(hit.rerank_score or 0))


def _expanded(corpus: Corpus, hits: Sequence[Hit], known: Mapping[str, DocumentRow], expand: Expand) -> list[Hit]:
    if not hits:
        return []
    around = passages(corpus, hits[0].version, [(known[hit.document], hit.ordinal) for hit in hits], expand)
    return [replace(hit, passage=passage) for hit, passage in zip(hits, around, strict=True)]


def filter_at_head(corpus: Corpus, conditions: Sequence[str]) -> DocumentFilter:
    """Parse conditions, which may name the user's columns of the table.

    Raises:
        ConfigurationError: A condition has no known column, operator or valid value.
    """
    if not conditions:
        return _EVERYTHING
    return parse_filter(conditions, table_columns(corpus.table.at(corpus.head().head_version).schema))


def restriction_of(corpus: Corpus, head: int, principals: Sequence[str] | None) -> Restriction:
    """The restriction of a search at a version.

    Raises:
        ConfigurationError: The corpus demands principals, or does not restrict access.
    """
    with corpus.database.transaction() as connection:
        access = read_access(connection, corpus.name)
    columns = table_columns(corpus.table.at(head).schema) if access.column else NO_COLUMNS
    return restriction(corpus.name, access, columns, principals)


async def _embedded(corpus: Corpus, embedder: EmbeddingClient | None, question: str) -> npt.NDArray[np.float32]:
    if embedder is None:
        raise ConfigurationError("A search by vector needs an embedder", "Pass an embedder, or search by text.")
    expected, actual = corpus.head().embedding, embedder.settings.embedding
    if actual != expected:
        raise CorpusMismatchError(
            f"Corpus {corpus.name!r} was embedded with {expected}, but the question would be embedded with {actual}",
            "Set INGEST_EMBEDDING_MODEL and INGEST_EMBEDDING_DIMENSIONS to those of the corpus, or search by text.",
        )
    answer = await embedder.embed([question], purpose="query")
    vector: npt.NDArray[np.float32] = answer.vectors[0]
    return vector


def _documents(corpus: Corpus, head: int, rows: Sequence[dict[str, Any]]) -> dict[str, DocumentRow]:
    keys = sorted({row["document"] for row in rows})
    with corpus.database.transaction() as connection:
        return {row.key: row for row in documents.documents_at(connection, corpus.generation, head, keys)}


def _hit(
    row: dict[str, Any], document: DocumentRow, head: int, mode: SearchMode, scores: _Scores, *, of_chunks: Columns
) -> Hit:
    score = float(row[_SCORES[mode]])
    return Hit(
        document=row["document"],
        start_offset=row["start_offset"],
        end_offset=row["end_offset"],
        score=1.0 - score if mode == "vector" else score,
        similarity=scores.similarity.get(row["id"]),
        bm25=scores.bm25.get(row["id"]),
        rerank_score=None,
        text=row["text"],
        page=row["page"],
        last_page=row["last_page"],
        heading=row["heading"],
        ordinal=row["ordinal"],
        id=row["id"],
        partition=document.partition,
        last_modified=document.last_modified,
        saga=str(UUID(row["saga"])),
        published_version=document.published_version,
        version=head,
        columns=document.columns | of_chunks.of_row(row),
    )
