"""One ranking out of two, by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), as LanceDB does it."""

from __future__ import annotations

import pyarrow as pa

_ROW = "_rowid"


def fuse(question: str, by_vector: pa.Table, by_text: pa.Table) -> pa.Table:
    """Rows of both rankings, each once, best first, with the fused score in ``_relevance_score``.

    Args:
        question: What was asked.
        by_vector: A ranking, best first, with a column ``id``.
        by_text: Another, with the same columns.
    """
    from lancedb.rerankers import RRFReranker  # noqa: PLC0415  a second of CPU that only this call is worth

    numbers: dict[str, int] = {}
    rankings: list[pa.Table] = []
    for ranking in (by_vector, by_text):
        # Rows are told apart by id: the two rankings need not come from the same table.
        rows = pa.array([numbers.setdefault(key, len(numbers)) for key in ranking["id"].to_pylist()], pa.uint64())
        rankings.append(ranking.append_column(_ROW, rows))
    return RRFReranker().rerank_hybrid(question, *rankings).drop_columns([_ROW])
