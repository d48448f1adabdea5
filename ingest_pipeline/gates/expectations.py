"""Expectations of prepared chunks and documents: shares of bad chunks, documents lost or removed, drift of the mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ingest_pipeline.types import Finding, Vectors

MAX_IDS = 20
# Of a larger table, the mean vector is estimated from this many rows. Its error is then far below any useful limit.
_SAMPLED_ROWS = 4096
_WORD = re.compile(r"[^\W_]")


def share(figure: str, count: int, total: int, limit: float, ids: Sequence[str] = ()) -> Finding:
    """The finding for a share of something."""
    value = count / total if total else 0.0
    passed = value <= limit
    return Finding(figure, value, limit, passed, () if passed else tuple(ids[:MAX_IDS]))


@dataclass(slots=True)
class EmptyChunks:
    """Counts chunks without a letter or a digit."""

    total: int = 0
    count: int = 0
    ids: list[str] = field(default_factory=list[str])

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch with the columns ``id`` and ``text``."""
        for number, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            self.total += 1
            if _WORD.search(text) is None:
                self.count += 1
                self.ids += [number] if len(self.ids) < MAX_IDS else []

    def finding(self, limit: float) -> Finding:
        """The finding for their share."""
        return share("empty", self.count, self.total, limit, self.ids)


@dataclass(slots=True)
class VectorSum:
    """The sum of vectors, each scaled to unit length."""

    total: Vectors | None = None
    count: int = 0

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> VectorSum:
        """The sum of the column ``vector`` of some batches."""
        found = cls()
        for batch in batches:
            found.add(batch["vector"])
        return found

    def add(self, column: pa.Array) -> None:
        """Add a column of vectors."""
        rows = len(column)
        if not rows:
            return
        vectors = np.asarray(column.flatten(), np.float32).reshape(rows, -1)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        added = (vectors / np.where(lengths == 0, 1, lengths)).sum(axis=0)
        self.total = added if self.total is None else self.total + added
        self.count += rows

    def scaled_to(self, count: int) -> VectorSum:
        """Estimate the sum of this many vectors from these, which are a sample of them."""
        if self.total is None or not self.count:
            return VectorSum()
        return VectorSum(self.total * (count / self.count), count)

    def changed(self, removed: VectorSum, added: VectorSum) -> VectorSum:
        """The sum after some vectors were removed and others added."""
        parts = [(1, self), (-1, removed), (1, added)]
        totals = [sign * part.total for sign, part in parts if part.total is not None]
        count = sum(sign * part.count for sign, part in parts)
        return VectorSum(np.sum(totals, axis=0) if totals else None, count)


def sampled_positions(rows: int) -> list[int]:
    """Positions of the rows from which the mean of a table is estimated: all of a small table, else evenly spaced."""
    if rows <= _SAMPLED_ROWS:
        return list(range(rows))
    return [position * rows // _SAMPLED_ROWS for position in range(_SAMPLED_ROWS)]


def drift(before: VectorSum, after: VectorSum, limit: float) -> Finding | None:
    """The finding for the cosine distance between two means; None if there is nothing to compare."""
    if before.total is None or after.total is None or before.count <= 0 or after.count <= 0:
        return None
    lengths = float(np.linalg.norm(before.total) * np.linalg.norm(after.total))
    value = 1.0 - float(np.dot(before.total, after.total)) / lengths if lengths else 0.0
    value = max(0.0, value)
    return Finding("drift", value, limit, value <= limit)
