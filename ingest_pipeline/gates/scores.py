"""How well searches of a table find what a golden set expects: recall@k, nDCG@k and the mean reciprocal rank.

Each expected document, chunk or text counts once, at the rank of the first chunk that matches it. Recall@k is the share
of them among the first k chunks, nDCG@k weighs them by rank (Jarvelin and Kekalainen, 2002), and the reciprocal rank is
that of the first. A score is the mean over the questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ingest_pipeline.gates.golden_set import GoldenQuestion
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.search import with_words_indexed
from ingest_pipeline.types import SearchMode, Vectors

if TYPE_CHECKING:
    import lance

    from ingest_pipeline.search.ranking import Read, Reader

_COLUMNS = ("id", "document", "ordinal", "text")


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """What the search for one question found."""

    query: str
    recall: float
    ndcg: float
    reciprocal_rank: float
    missing: tuple[str, ...]
    """Expected documents, chunks and texts that are not among the first k chunks."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a golden set at one version."""

    k: int
    mode: SearchMode
    questions: tuple[QuestionScore, ...]
    version: int | None = None
    """The version that was searched. None: it is not published."""

    @property
    def recall(self) -> float:
        """Mean recall@k."""
        return _mean([question.recall for question in self.questions])

    @property
    def ndcg(self) -> float:
        """Mean nDCG@k."""
        return _mean([question.ndcg for question in self.questions])

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank within the first k chunks."""
        return _mean([question.reciprocal_rank for question in self.questions])

    @property
    def missed(self) -> list[QuestionScore]:
        """The questions for which something was not found, worst first."""
        return sorted((one for one in self.questions if one.missing), key=lambda one: (one.recall, one.query))

    def changed_since(self, other: Scores) -> list[tuple[QuestionScore, QuestionScore]]:
        """The questions whose recall or rank differs from another version, with both outcomes, largest losses first."""
        before = {one.query: one for one in other.questions}
        pairs = [(before[one.query], one) for one in self.questions if one.query in before]
        changed = [pair for pair in pairs if _of(pair[0]) != _of(pair[1])]
        return sorted(changed, key=lambda pair: (pair[1].recall - pair[0].recall, pair[1].ndcg - pair[0].ndcg))


class ScoredTable:
    """A table on which golden sets are scored.

    Args:
        read: Applies a function to the table.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._words: lance.LanceDataset | None = None

    def score(
        self,
        questions: Sequence[GoldenQuestion],
        vectors: Vectors | None,
        *,
        k: int,
        mode: SearchMode,
        version: int | None = None,
    ) -> Scores:
        """Search for each question. Neither a reranker nor a restriction of access applies.

        Args:
            questions: The questions.
            vectors: Their vectors, shape (n, dimensions). None for mode ``text``.
            k: Chunks that count.
            mode: How to search.
            version: The version of the table.
        """
        from ingest_pipeline.search.ranking import Ranking  # noqa: PLC0415  a run without a golden set ranks nothing

        ranking = Ranking(k, mode, _COLUMNS)
        found: list[QuestionScore] = []
        for number, question in enumerate(questions):
            vector = None if vectors is None else vectors[number]
            best = ranking.of(self._read, question.query, vector, self._read_words).best
            found.append(_scored(question, best.slice(0, k).to_pylist()))
        return Scores(k, mode, tuple(found), version)

    def present(self, questions: Sequence[GoldenQuestion]) -> set[str]:
        """The expected keys of documents and ids of chunks that the table has."""
        found: set[str] = set()
        for column, wanted in (
            ("document", {key for question in questions for key in question.documents}),
            ("id", {number for question in questions for number in question.chunks}),
        ):
            if wanted:
                found |= set(self._read(_matching(column, sorted(wanted)))[column].to_pylist())
        return found

    def _read_words(self, reader: Reader) -> pa.Table:
        """Apply a function to the table, or to a copy of it whose words are indexed once for all questions."""

        def with_words(rows: lance.LanceDataset) -> pa.Table:
            if self._words is None:
                self._words = with_words_indexed(rows) if rows.fragment_ids() else rows
            return reader(self._words)

        return self._read(with_words)


def _matching(column: str, wanted: Sequence[str]) -> Reader:
    def rows(dataset: lance.LanceDataset) -> pa.Table:
        return dataset.scanner(columns=[column], filter=one_of(column, wanted)).to_table()

    return rows


def _scored(question: GoldenQuestion, hits: Sequence[dict[str, Any]]) -> QuestionScore:
    ranks: dict[str, int | None] = {}
    for key in question.documents:
        ranks[key] = _first(hit["document"] == key for hit in hits)
    for number in question.chunks:
        ranks[number] = _first(hit["id"] == number for hit in hits)
    for text in question.texts:
        ranks[text] = _first(_plain(text) in _plain(hit["text"]) for hit in hits)
    found = [rank for rank in ranks.values() if rank is not None]
    ideal = sum(_gain(rank) for rank in range(1, len(ranks) + 1))
    return QuestionScore(
        question.query,
        len(found) / len(ranks),
        min(1.0, sum(map(_gain, found)) / ideal),
        1 / min(found) if found else 0.0,
        tuple(key for key, rank in ranks.items() if rank is None),
    )


def _first(matches: Iterable[bool]) -> int | None:
    return next((rank for rank, matched in enumerate(matches, 1) if matched), None)


def _gain(rank: int) -> float:
    return 1 / math.log2(rank + 1)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _of(score: QuestionScore) -> tuple[float, float]:
    return score.recall, score.ndcg


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
