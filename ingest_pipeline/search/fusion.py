"""Makes one ranking of two: by vector and by words.

Each ranking's scores are scaled to between 0, at its fiftieth row, and 1, at its first, and added with weights. Of
functions that fuse rankings this is one of the best (Bruch, Gai and Ingber: An Analysis of Fusion Functions for Hybrid
Retrieval, ACM TOIS 2023): unlike reciprocal rank fusion it keeps how much better one row is than the next, so that a
row which names the thing that is looked for is not outvoted. The weights were chosen on one half of the questions of
`benchmarks.search.retrieval` and measured on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

DEPTH: Final = 50
"""The row whose score becomes 0. A fixed one, so that the limit of a search does not change the order of its hits."""
_VECTOR_WEIGHT: Final = 0.4


def fuse(by_vector: pa.Table, by_text: pa.Table) -> pa.Table:
    """Rows of both rankings, each once, best first, with the fused score in ``_relevance_score``.

    Args:
        by_vector: A ranking, best first, with the columns ``id`` and ``_distance``. It may lack the latter if empty.
        by_text: Another, with ``id`` and ``_score``, and otherwise the same columns.
    """
    similar = [-distance for distance in _values(by_vector, "_distance")]
    rankings = [
        (by_vector["id"].to_pylist(), _scaled(similar, None), _VECTOR_WEIGHT),
        # No score of words means no word in common. The least similarity means nothing.
        (by_text["id"].to_pylist(), _scaled(_values(by_text, "_score"), 0.0), 1 - _VECTOR_WEIGHT),
    ]
    scores: dict[str, float] = {}
    ranks: dict[str, int] = {}
    positions: dict[str, int] = {}
    for keys, scaled, weight in rankings:
        for rank, (key, score) in enumerate(zip(keys, scaled, strict=True)):
            scores[key] = scores.get(key, 0.0) + weight * score
            ranks[key] = min(rank, ranks.get(key, rank))
    rows = pa.concat_tables([_without(by_vector, "_distance"), _without(by_text, "_score")])
    for position, key in enumerate(rows["id"].to_pylist()):
        positions.setdefault(key, position)
    # Below the fiftieth row all scores are 0, and the better rank decides.
    order = sorted(positions, key=lambda key: (-scores[key], ranks[key], positions[key]))
    fused = rows.take(pa.array([positions[key] for key in order], pa.int64()))
    return fused.append_column("_relevance_score", pa.array([scores[key] for key in order], pa.float32()))


def _values(rows: pa.Table, column: str) -> list[float]:
    return rows[column].to_pylist() if column in rows.column_names else []


def _without(rows: pa.Table, column: str) -> pa.Table:
    return rows.drop_columns(column) if column in rows.column_names else rows


def _scaled(scores: Sequence[float], least: float | None) -> list[float]:
    """Scores between 0 and 1.

    Args:
        scores: The scores, best first.
        least: The score that becomes 0 if there are fewer than `DEPTH` rows. None: the last one.
    """
    if not scores:
        return []
    best, last = scores[0], scores[min(DEPTH, len(scores)) - 1]
    lowest = last if least is None or len(scores) >= DEPTH else least
    spread = best - lowest
    return [max(0.0, (score - lowest) / spread) if spread > 0 else 1.0 for score in scores]
