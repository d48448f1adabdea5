"""The columns of a corpus' LanceDB table, and chunks as rows of it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
import pyarrow as pa

from ingest_pipeline.catalog import ChunkRow
from ingest_pipeline.ledger import Vector

# Lance treats the column as a key in its own merges: a second line against duplicates, behind the publication's.
_KEY = {"lance-schema:unenforced-primary-key": "true"}


def chunk_schema(dimensions: int) -> pa.Schema:
    """Columns of the table of a corpus whose vectors are this wide."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("document", pa.string(), nullable=False),
            pa.field("partition", pa.string(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("start_offset", pa.int64(), nullable=False),
            pa.field("end_offset", pa.int64(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("saga", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def chunk_table(
    chunks: Sequence[ChunkRow], texts: Sequence[str], vectors: Sequence[Vector], *, saga: UUID, partition: str
) -> pa.Table:
    """Chunks of one partition as rows; the three sequences run in parallel.

    Args:
        chunks: n of them.
        texts: Their texts.
        vectors: Their vectors, each of shape (dimensions,).
        saga: That will publish them.
        partition: Of their document.
    """
    dimensions = len(vectors[0])
    schema = chunk_schema(dimensions)
    flat = pa.array(np.concatenate(vectors).astype(np.float32, copy=False))
    columns = [
        pa.array([str(chunk.id) for chunk in chunks]),
        pa.array([chunk.document for chunk in chunks]),
        pa.array([partition] * len(chunks)),
        pa.array([chunk.ordinal for chunk in chunks], pa.int32()),
        pa.array([chunk.start_offset for chunk in chunks], pa.int64()),
        pa.array([chunk.end_offset for chunk in chunks], pa.int64()),
        pa.array(texts),
        pa.array([str(chunk.text_hash) for chunk in chunks]),
        pa.array([str(saga)] * len(chunks)),
        pa.FixedSizeListArray.from_arrays(flat, dimensions),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
