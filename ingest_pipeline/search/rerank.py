"""Fuses two rankings into one, by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa

# The constant of the paper, and of LanceDB's RRFReranker.
_K = 60


def fuse(by_vector: pa.Table, by_text: pa.Table) -> pa.Table:
    """Rows of both rankings, each once, with the fused score in ``_relevance_score``.

    Args:
        by_vector: A ranking, best first, with a column ``id``.
        by_text: Another, with the same columns.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    positions: dict[str, int] = {}
    rows = pa.concat_tables([by_vector, by_text])
    for ranking in (by_vector, by_text):
        for rank, key in enumerate(ranking["id"].to_pylist(), 1):
            scores[key] += 1 / (_K + rank)
    for position, key in enumerate(rows["id"].to_pylist()):
        positions.setdefault(key, position)
    fused = rows.take(list(positions.values()))
    return fused.append_column("_relevance_score", pa.array([scores[key] for key in positions], pa.float32()))
