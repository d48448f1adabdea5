"""Recall, nDCG and reciprocal rank by hand, on a table in memory."""

from __future__ import annotations

import lance
import numpy as np
import pyarrow as pa
import pytest

from ingest_pipeline.gates.golden_set import GoldenQuestion
from ingest_pipeline.gates.scores import QuestionScore, ScoredTable, Scores
from ingest_pipeline.search.ranking import Reader
from ingest_pipeline.types import SearchMode

ANGLES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
"""Chunk n is in document n // 2, and the further from the question the higher n."""


@pytest.fixture(scope="module")
def table() -> ScoredTable:
    vectors = np.array([[np.cos(a), np.sin(a)] for a in ANGLES], dtype=np.float32)
    rows = pa.table(
        {
            "id": [f"chunk-{n}" for n in range(6)],
            "document": [f"{n // 2}.md" for n in range(6)],
            "ordinal": [n % 2 for n in range(6)],
            "text": [f"apple{n}\n  pear" for n in range(6)],
            "header": pa.nulls(6, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 2),
        }
    )
    dataset = lance.write_dataset(rows, "memory://")

    def read(reader: Reader) -> pa.Table:
        return reader(dataset)

    return ScoredTable(read)


def score(table: ScoredTable, question: GoldenQuestion, k: int = 3, mode: SearchMode = "vector") -> QuestionScore:
    found = table.score([question], np.array([[1.0, 0.0]], dtype=np.float32), k=k, mode=mode)
    assert (found.k, found.mode) == (k, mode)
    return found.questions[0]


def test_what_is_found_first_scores_1(table: ScoredTable) -> None:
    assert score(table, GoldenQuestion("q", documents=("0.md",))) == QuestionScore("q", 1.0, 1.0, 1.0, ())


def test_a_document_counts_once_at_its_first_chunk(table: ScoredTable) -> None:
    found = score(table, GoldenQuestion("q", documents=("1.md", "2.md")))
    ideal = 1 + 1 / np.log2(3)
    assert (found.recall, found.reciprocal_rank, found.missing) == (0.5, 1 / 3, ("2.md",))
    assert found.ndcg == pytest.approx((1 / np.log2(4)) / ideal)


def test_chunks_and_texts_are_found_whatever_the_white_space(table: ScoredTable) -> None:
    question = GoldenQuestion("q", chunks=("chunk-1", "chunk-5"), texts=("apple2 pear", "apple9"))
    found = score(table, question)
    assert (found.recall, found.missing, found.reciprocal_rank) == (0.5, ("chunk-5", "apple9"), 0.5)


def test_only_the_first_k_count(table: ScoredTable) -> None:
    question = GoldenQuestion("q", documents=("2.md",))
    assert [score(table, question, k).recall for k in (4, 5)] == [0.0, 1.0]


def test_words_alone_and_with_vectors(table: ScoredTable) -> None:
    question = GoldenQuestion("apple5", documents=("2.md",))
    assert table.score([question], None, k=1, mode="text").recall == 1.0
    assert score(table, question, 2, "hybrid").recall == 1.0
    assert score(table, question, 2, "vector").recall == 0.0


def test_what_is_present(table: ScoredTable) -> None:
    questions = [GoldenQuestion("q", documents=("1.md", "9.md"), chunks=("chunk-0", "chunk-9"), texts=("x",))]
    assert table.present(questions) == {"1.md", "chunk-0"}


def test_two_versions_are_compared_by_question() -> None:
    before = Scores(5, "text", (QuestionScore("a", 1, 1, 1, ()), QuestionScore("b", 0.5, 0.5, 1, ("x",))), 3)
    after = Scores(
        5,
        "text",
        (QuestionScore("a", 0, 0, 0, ("y",)), QuestionScore("b", 0.5, 0.5, 1, ("x",)), QuestionScore("c", 1, 1, 1, ())),
        4,
    )
    assert [(one.query, two.query) for one, two in after.changed_since(before)] == [("a", "a")]
    assert (before.recall, after.recall) == (0.75, 0.5)
    assert [one.query for one in after.missed] == ["a", "b"]
    assert Scores(5, "text", ()).recall == 0.0
