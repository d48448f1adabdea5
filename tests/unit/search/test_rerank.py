"""Two rankings become one as LanceDB's own reranker makes it."""

from __future__ import annotations

import pyarrow as pa
import pytest
from lancedb.rerankers import RRFReranker

from ingest_pipeline.search.rerank import fuse

_RANKINGS = [(["a", "b", "c"], ["c", "d"]), (["a"], []), ([], ["x", "y"]), (["a", "b"], ["b", "a"])]


@pytest.mark.parametrize(("by_vector", "by_text"), _RANKINGS)
def test_the_scores_are_those_of_lancedb(by_vector: list[str], by_text: list[str]) -> None:
    numbers = {key: number for number, key in enumerate(dict.fromkeys([*by_vector, *by_text]))}
    rankings = [
        pa.table({"id": pa.array(keys, pa.string()), "_rowid": pa.array([numbers[key] for key in keys], pa.uint64())})
        for keys in (by_vector, by_text)
    ]
    expected = RRFReranker().rerank_hybrid("", *rankings)
    fused = fuse(*rankings)
    assert _scores(fused) == pytest.approx(_scores(expected))
    assert fused["id"].to_pylist() == list(dict.fromkeys([*by_vector, *by_text]))


def _scores(rows: pa.Table) -> dict[str, float]:
    return dict(zip(rows["id"].to_pylist(), rows["_relevance_score"].to_pylist(), strict=True))
