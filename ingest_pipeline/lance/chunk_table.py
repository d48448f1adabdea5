"""The columns of a corpus' LanceDB table, and chunks as rows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ingest_pipeline.columns.declaration import NO_COLUMNS, Columns, Values, columns_of
from ingest_pipeline.columns.values import Value
from ingest_pipeline.types import ChunkRow, Vector

# Lance treats the column as a key in its own merges: a second defence against duplicates, besides the publication's.
_KEY = {"lance-schema:unenforced-primary-key": "true"}


def chunk_schema(dimensions: int, columns: Columns = NO_COLUMNS) -> pa.Schema:
    """The columns of a corpus' table for vectors of this width, with the user's columns at the end."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("document", pa.string(), nullable=False),
            pa.field("partition", pa.string(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("start_offset", pa.int64(), nullable=False),
            pa.field("end_offset", pa.int64(), nullable=False),
            pa.field("page", pa.int32()),
            pa.field("last_page", pa.int32()),
            pa.field("heading", pa.string()),
            pa.field("header", pa.string()),
            pa.field("text", pa.string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("saga", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            *columns.fields,
        ]
    )


OWN_COLUMNS = tuple(chunk_schema(1).names)
"""Names of the columns that the table of every corpus has."""


def table_columns(schema: pa.Schema) -> Columns:
    """The user's columns in the table of a corpus."""
    return columns_of(schema, OWN_COLUMNS)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A chunk with all columns of its row in the table."""

    chunk: ChunkRow
    partition: str
    text: str
    vector: Vector
    """Shape (dimensions,)."""
    header: str | None = None
    """What was embedded before the text."""
    columns: Values = field(default_factory=dict[str, Value])
    """Values of the user's columns."""


def chunk_table(rows: Sequence[TableRow], schema: pa.Schema | None = None) -> pa.Table:
    """One or more rows as a table with the columns of the corpus.

    Args:
        rows: The rows.
        schema: The columns of the table. None: those that every corpus has.
    """
    chunks = [row.chunk for row in rows]
    dimensions = len(rows[0].vector)
    flat = pa.allocate_buffer(4 * dimensions * len(rows))
    np.concatenate([row.vector for row in rows], out=np.frombuffer(flat, "<f4"))
    own = [
        pa.array([str(chunk.id) for chunk in chunks]),
        pa.array([chunk.document for chunk in chunks]),
        pa.array([row.partition for row in rows]),
        pa.array([chunk.ordinal for chunk in chunks], pa.int32()),
        pa.array([chunk.start_offset for chunk in chunks], pa.int64()),
        pa.array([chunk.end_offset for chunk in chunks], pa.int64()),
        pa.array([chunk.page for chunk in chunks], pa.int32()),
        pa.array([chunk.last_page for chunk in chunks], pa.int32()),
        pa.array([chunk.heading for chunk in chunks], pa.string()),
        pa.array([row.header for row in rows], pa.string()),
        pa.array([row.text for row in rows]),
        pa.array([str(chunk.text_hash) for chunk in chunks]),
        pa.array([str(chunk.saga) for chunk in chunks]),
        pa.FixedSizeListArray.from_arrays(
            pa.Array.from_buffers(pa.float32(), dimensions * len(rows), [None, flat]), dimensions
        ),
    ]
    fields: pa.Schema = chunk_schema(dimensions) if schema is None else schema
    arrays = dict(zip(OWN_COLUMNS, own, strict=True)) | table_columns(fields).arrays([row.columns for row in rows])
    return pa.Table.from_arrays([arrays[name] for name in fields.names], schema=fields)
