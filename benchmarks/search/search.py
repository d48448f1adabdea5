"""Searching a corpus of a hundred thousand or a million chunks, without indices and with them: latency and recall."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from time import perf_counter
from uuid import UUID

import numpy as np
import numpy.typing as npt

from benchmarks.data.filling import ROWS_PER_DOCUMENT, chunk_rows, fill
from benchmarks.report import Report
from benchmarks.support.corpus import corpus_config
from benchmarks.support.stage import stage
from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import TextIndexMissingError
from ingest_pipeline.ingestion.context import open_context
from ingest_pipeline.lance.chunk_table import TableRow
from ingest_pipeline.maintenance.indexing import update_indices
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.search.filters import DocumentFilter, parse_filter
from ingest_pipeline.search.search import Hit, find
from ingest_pipeline.types import SearchMode

_DIMENSIONS = 256
_TOPICS = 2000
_WORDS = 20_000
_WORDS_PER_CHUNK = 60
_QUESTIONS = 100
_SLOW_QUESTIONS = 10
_LIMIT = 10
_WHERE = parse_filter(["key=0001*"])  # a hundred documents
_KINDS: Sequence[tuple[SearchMode, DocumentFilter | None]] = (
    ("vector", None),
    ("vector", _WHERE),
    ("text", None),
    ("text", _WHERE),
    ("hybrid", None),
)
_RANDOM = np.random.default_rng(7)
_CENTRES = _RANDOM.standard_normal((_TOPICS, _DIMENSIONS), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Question:
    words: str
    vector: npt.NDArray[np.float32]


def run(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """At 100,000 chunks."""
    _measure(report, step, 20_000 if quick else 100_000)


def run_million(report: Report, step: Callable[[str], None], *, quick: bool) -> None:
    """At a million: many minutes, and gigabytes. At 200,000 in a hurry."""
    _measure(report, step, 200_000 if quick else 1_000_000)


def _measure(report: Report, step: Callable[[str], None], rows: int) -> None:
    with stage() as surroundings, Database(surroundings.database()) as database:
        source = surroundings.folder / "source"
        source.mkdir(parents=True)
        settings = corpus_config(source, surroundings.folder / "lancedb", _DIMENSIONS)
        step(f"search: filling {rows:,} rows")
        corpus = open_context(database, settings).corpus
        fill(corpus, rows, _DIMENSIONS, _table_rows)
        questions = _questions()
        exact = {number: _ids(_ask(corpus, one, "vector", use_index=False)) for number, one in enumerate(questions)}
        for indexed in (False, True):
            if indexed:
                step("search: building indices")
                update_indices(corpus)
            step(f"search: {'with' if indexed else 'without'} indices")
            _report(report, corpus, rows, questions, exact, indexed=indexed)


def _report(
    report: Report,
    corpus: Corpus,
    rows: int,
    questions: Sequence[_Question],
    exact: dict[int, set[str]],
    *,
    indexed: bool,
) -> None:
    asked = questions if indexed else questions[:_SLOW_QUESTIONS]
    for mode, where in _KINDS:
        seconds: list[float] = []
        found: list[set[str]] = []
        name = mode if where is None else f"{mode}, filtered"
        try:
            _ask(corpus, asked[0], mode, where)  # opens what stays open
            for question in asked:
                start = perf_counter()
                hits = _ask(corpus, question, mode, where)
                seconds.append(perf_counter() - start)
                found.append(_ids(hits))
        except TextIndexMissingError:
            continue
        recall = [len(exact[number] & ids) / len(exact[number]) for number, ids in enumerate(found)]
        report.add(
            rows=rows,
            indices="yes" if indexed else "no",
            mode=name,
            questions=len(asked),
            p50_ms=round(1000 * median(seconds), 1),
            p99_ms=round(1000 * quantiles(seconds, n=100, method="inclusive")[-1], 1),
            recall_at_10=f"{sum(recall) / len(recall):.3f}" if name == "vector" else "",
        )


def _ask(
    corpus: Corpus,
    question: _Question,
    mode: SearchMode,
    where: DocumentFilter | None = None,
    *,
    use_index: bool = True,
) -> list[Hit]:
    vector = None if mode == "text" else question.vector
    chosen = DocumentFilter() if where is None else where
    return find(corpus, question.words, vector, _LIMIT, mode=mode, where=chosen, use_index=use_index)


def _ids(hits: Sequence[Hit]) -> set[str]:
    return {hit.id for hit in hits}


def _questions() -> list[_Question]:
    """Of a topic each, in three words of which one is rare."""
    random = np.random.default_rng(11)
    vectors = _vectors(random, _QUESTIONS)
    words = _words(random, 3 * _QUESTIONS)
    bounds = pairwise(range(0, 3 * _QUESTIONS + 1, 3))
    return [_Question(" ".join(words[start:end]), vector) for (start, end), vector in zip(bounds, vectors, strict=True)]


def _table_rows(saga: UUID, documents: Sequence[int], dimensions: int) -> Iterator[TableRow]:  # noqa: ARG001  fixed
    random = np.random.default_rng(documents[0])
    for number in documents:
        vectors = _vectors(random, ROWS_PER_DOCUMENT)
        words = _words(random, ROWS_PER_DOCUMENT * _WORDS_PER_CHUNK)
        for place, (chunk, vector) in enumerate(zip(chunk_rows(saga, number), vectors, strict=True)):
            text = " ".join(words[place * _WORDS_PER_CHUNK : (place + 1) * _WORDS_PER_CHUNK])
            yield TableRow(chunk, chunk.document, text, vector)


def _vectors(random: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """Around topics, as texts are: without any, no two vectors are near."""
    noise = random.standard_normal((count, _DIMENSIONS), dtype=np.float32)
    return _CENTRES[random.integers(0, _TOPICS, count)] + noise


def _words(random: np.random.Generator, count: int) -> list[str]:
    """As often as words are: the n-th one n times as rarely as the first."""
    ranks = np.minimum(random.zipf(1.2, count), _WORDS)
    return [f"w{rank}" for rank in ranks.tolist()]
