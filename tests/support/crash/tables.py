"""A small table of a user's own, for tests without documents."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32(), 4))])


def rows_of(ids: Sequence[str]) -> pa.Table:
    """One row for each id."""
    vectors = pa.array([[float(len(number)), 0.0, 0.0, 1.0] for number in ids], pa.list_(pa.float32(), 4))
    return pa.table({"id": list(ids), "vector": vectors}, schema=SCHEMA)
