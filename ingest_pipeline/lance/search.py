"""Finding rows of a table by their vector and by their words, with and without indices.

An index changes how long it takes. By vector, it also makes the answer approximate. By words, the same rows match in
any case; they are ranked by BM25, whose counts an index takes from the rows it was built over. So scores differ a
little where rows came or went since, until the index is brought up to date.
"""

from __future__ import annotations

from collections.abc import Sequence

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance.query import MatchQuery

from ingest_pipeline.errors import TextIndexMissingError

# With an index: how many of its partitions are searched, and how many candidates for each row are compared exactly.
_PROBES = 32
_REFINED = 10
# So many rows are indexed in memory for one question, in seconds; more wait for an index of the table.
_INDEXED_IN_MEMORY = 100_000
_MEMORY = "memory://"


def nearest(
    dataset: lance.LanceDataset,
    vector: npt.NDArray[np.float32],
    limit: int,
    columns: Sequence[str],
    *,
    predicate: str | None = None,
    use_index: bool = True,
) -> pa.Table:
    """Rows nearest to a vector by cosine distance, which comes as ``_distance``; nearest first.

    Args:
        dataset: The table at a version.
        vector: Shape (dimensions,).
        limit: Rows, at most.
        columns: Wanted besides the distance.
        predicate: Rows that do not satisfy it are not looked at.
        use_index: False: compare with every row.
    """
    if not dataset.fragment_ids():
        return dataset.schema.empty_table().select(list(columns))
    return dataset.scanner(
        columns=[*columns, "_distance"],
        filter=predicate,
        prefilter=predicate is not None,
        nearest={
            "column": "vector",
            "q": vector,
            "k": limit,
            "metric": "cosine",
            "nprobes": _PROBES,
            "refine_factor": _REFINED,
            "use_index": use_index,
        },
    ).to_table()


def matching(
    dataset: lance.LanceDataset, question: str, limit: int, columns: Sequence[str], *, predicate: str | None = None
) -> pa.Table:
    """Rows whose text has words of the question, scored by BM25 in ``_score``; best first.

    Args: As of `nearest`.

    Raises:
        TextIndexMissingError: The table has no index of its words and is too large to make one for a question.
    """
    if not dataset.fragment_ids():
        return dataset.schema.empty_table().select(list(columns))
    indexed = dataset if has_text_index(dataset) else _indexed_in_memory(dataset, columns)
    return indexed.scanner(
        columns=[*columns, "_score"],
        filter=predicate,
        prefilter=predicate is not None,
        full_text_query=MatchQuery(question, "text"),
        limit=limit,
    ).to_table()


def has_text_index(dataset: lance.LanceDataset) -> bool:
    """Whether the words of the column ``text`` are indexed. Without, Lance cuts text into other words."""
    return any(index.field_names == ["text"] for index in dataset.describe_indices())


def _indexed_in_memory(dataset: lance.LanceDataset, columns: Sequence[str]) -> lance.LanceDataset:
    """A copy with an index as the table's own would be, so that a question has one answer."""
    rows = dataset.count_rows()
    if rows > _INDEXED_IN_MEMORY:
        raise TextIndexMissingError(f"The words of {rows} chunks are not indexed yet")
    names = list(dict.fromkeys([*columns, "document", "text"]))
    copy = lance.write_dataset(dataset.scanner(columns=names).to_reader(), _MEMORY)
    copy.create_scalar_index("text", "INVERTED")
    return copy
