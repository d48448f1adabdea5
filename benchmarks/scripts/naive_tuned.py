"""A child process: the naive script by somebody who knows that lists of Python floats are slow, and uses Arrow."""

from __future__ import annotations

import asyncio

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from openai.types import Embedding

from benchmarks.scripts.naive import embed, fill_catalog, split
from benchmarks.support.stage import Job, serve


def _vectors(data: list[Embedding]) -> npt.NDArray[np.float32]:
    return np.array([item.embedding for item in data], dtype=np.float32)


def work(job: Job) -> None:
    """Load the folder into a new table and a new database."""
    chunks = split(job.source)
    vectors = np.concatenate(asyncio.run(embed(job.endpoint, chunks, _vectors)))
    columns = [pa.array(column) for column in zip(*chunks, strict=True)]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]))
    rows = pa.table(columns, ["id", "document", "ordinal", "text", "vector"])
    lancedb.connect(job.lancedb).create_table("documents", rows[:1]).add(rows[1:])
    fill_catalog(job.database, chunks)


if __name__ == "__main__":
    serve(work)
