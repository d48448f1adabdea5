"""The order in which chunks answer a question: by vector, by words, or by both, fused into one ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest_pipeline.lance.search import matching, nearest
from ingest_pipeline.search.fusion import DEPTH, fuse
from ingest_pipeline.types import SearchMode

if TYPE_CHECKING:
    import lance

# Each of the two rankings is this many times longer than the limit: a low rank in both may be a high one when fused.
_FUSED_FACTOR = 4
# Chunks with equal scores have a fixed order, as far as they are among this many more.
_SPARE_ROWS = 16
Reader = Callable[["lance.LanceDataset"], pa.Table]
Read = Callable[[Reader], pa.Table]
"""Applies a function to the table that is searched."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The chunks that match a question, best first."""

    best: pa.Table
    parts: Sequence[pa.Table]
    """The rankings by vector and by words that it was made from."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How chunks are ranked."""

    limit: int
    """Chunks that are needed. A ranking has some more."""
    mode: SearchMode
    columns: Sequence[str]
    """Columns to read, among them ``id``, ``document`` and ``ordinal``."""
    predicate: str | None = None
    """SQL filter; other rows are ignored."""
    use_index: bool = True
    """If False, a search by vector compares with every chunk."""

    def of(
        self,
        read: Read,
        question: str,
        vector: npt.NDArray[np.float32] | None,
        read_words: Read | None = None,
    ) -> Ranked:
        """Rank the chunks of a table.

        Args:
            read: Reads the table.
            question: The question in words.
            vector: The embedded question, shape (dimensions,); None for mode ``text``.
            read_words: Reads a copy of the table whose words are indexed. None: as `read`.
        """
        count = (self.limit if self.mode != "hybrid" else max(DEPTH, _FUSED_FACTOR * self.limit)) + _SPARE_ROWS

        def by_vector(rows: lance.LanceDataset) -> pa.Table:
            assert vector is not None  # noqa: S101  not called without a vector
            return nearest(rows, vector, count, self.columns, predicate=self.predicate, use_index=self.use_index)

        def by_text(rows: lance.LanceDataset) -> pa.Table:
            return matching(rows, question, count, self.columns, predicate=self.predicate)

        parts: list[pa.Table] = []
        if vector is not None:
            parts.append(_in_order(read(by_vector), "_distance", "ascending"))
        if self.mode != "vector":
            parts.append(_in_order((read_words or read)(by_text), "_score", "descending"))
        return Ranked(parts[0] if self.mode != "hybrid" else fuse(*parts), parts)


def _in_order(rows: pa.Table, score: str, direction: str) -> pa.Table:
    if score not in rows.column_names:
        return rows
    return rows.sort_by([(score, direction), ("document", "ascending"), ("ordinal", "ascending")])
