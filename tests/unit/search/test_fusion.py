"""Two rankings become one in which both scores count, whatever their units and however many rows are asked for."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_pipeline.search.fusion import DEPTH, fuse

Scores = dict[str, float]
SCORES = st.dictionaries(st.sampled_from([f"row{number}" for number in range(120)]), st.floats(0.01, 1.9), max_size=120)


def ranking(scores: Scores, column: str) -> pa.Table:
    """A ranking, best first: the least distance, or the greatest score."""
    keys = sorted(scores, key=lambda key: (scores[key] if column == "_distance" else -scores[key], key))
    return pa.table({"id": pa.array(keys, pa.string()), column: pa.array([scores[key] for key in keys], pa.float32())})


def fused(distances: Scores, words: Scores) -> Scores:
    rows = fuse(ranking(distances, "_distance"), ranking(words, "_score"))
    return dict(zip(rows["id"].to_pylist(), rows["_relevance_score"].to_pylist(), strict=True))


def test_a_row_that_is_first_in_both_is_first() -> None:
    found = fused({"a": 0.2, "b": 0.5, "c": 0.9}, {"a": 7.0, "c": 3.5})
    assert list(found) == ["a", "b", "c"] or list(found) == ["a", "c", "b"]
    assert found == pytest.approx({"a": 1.0, "b": 0.4 * 4 / 7, "c": 0.3})


def test_a_row_that_alone_has_the_rare_word_is_not_outvoted() -> None:
    """By reciprocal ranks the row that is second in both would win."""
    distances = {f"row{number}": 0.5 + number / 1000 for number in range(DEPTH)}
    words = {"named": 20.0, **{f"row{number}": 3.0 - number / 100 for number in range(1, 20)}}
    assert next(iter(fused(distances, words))) == "named"


@pytest.mark.parametrize(
    ("distances", "words"), [({"a": 0.1}, {}), ({}, {"a": 3.0}), ({"a": 0.1}, {"a": 3.0}), ({}, {})]
)
def test_single_and_missing_rankings_are_fused(distances: Scores, words: Scores) -> None:
    found = fused(distances, words)
    assert set(found) == {*distances, *words}
    assert all(0 < score <= 1.0001 for score in found.values())


@settings(max_examples=200, derandomize=True, deadline=None)
@given(SCORES, SCORES, st.floats(0.1, 50))
def test_each_row_is_there_once_best_first_whatever_the_unit_of_scores(
    distances: Scores, words: Scores, factor: float
) -> None:
    found = fused(distances, words)
    assert set(found) == {*distances, *words}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert fused(distances, {key: factor * score for key, score in words.items()}) == pytest.approx(found, abs=1e-4)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(SCORES, SCORES)
def test_more_rows_do_not_change_the_order_of_the_best(distances: Scores, words: Scores) -> None:
    whole = (ranking(distances, "_distance"), ranking(words, "_score"))
    few = fuse(*(rows.slice(0, DEPTH) for rows in whole))
    scores = dict(zip(few["id"].to_pylist(), few["_relevance_score"].to_pylist(), strict=True))
    more = fuse(*whole)
    best = [
        key
        for key, score in zip(more["id"].to_pylist(), more["_relevance_score"].to_pylist(), strict=True)
        if score > 0
    ]
    assert few["id"].to_pylist()[: len(best)] == best
    assert all(score == 0 for key, score in scores.items() if key not in best)
