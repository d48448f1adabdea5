"""Finds rows of a table by their vector or by their words, with and without indices.

An index makes a search faster. A search by vector is then approximate. A search by words matches the same rows with and
without an index; BM25 ranks them with word counts from the rows that the index was built over. So scores differ a
little after rows were added or removed, until the index is updated.
"""

from __future__ import annotations

from collections.abc import Sequence

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance.query import MatchQuery, MultiMatchQuery

from ingest_pipeline.errors import TextIndexMissingError
from ingest_pipeline.types import counted

# With an index: the partitions that are searched, and the candidates that are compared exactly for each result row.
_PROBES = 32
_REFINED = 10
# Indexing this many rows in memory for one question takes seconds. Larger tables need a stored index.
_MAX_ROWS_INDEXED_IN_MEMORY = 100_000
_MEMORY = "memory://"
HAS_HEADER = "header IS NOT NULL"
"""Filter of the rows that were embedded with a header."""


def nearest(
    dataset: lance.LanceDataset,
    vector: npt.NDArray[np.float32],
    limit: int,
    columns: Sequence[str],
    *,
    predicate: str | None = None,
    use_index: bool = True,
) -> pa.Table:
    """Rows nearest to a vector by cosine distance, nearest first; the column ``_distance`` has the distance.

    Args:
        dataset: The table at a version.
        vector: Shape (dimensions,).
        limit: Maximum number of rows.
        columns: Columns to return besides the distance.
        predicate: SQL filter; other rows are ignored.
        use_index: If False, compare with every row.
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
    """Rows whose text or header contains words of the question, best first.

    The column ``_score`` has the BM25 score: the better one, if both have words of it.

    Args: See `nearest`.

    Raises:
        TextIndexMissingError: The table has no text index and is too large to index for one question.
    """
    if not dataset.fragment_ids():
        return dataset.schema.empty_table().select(list(columns))
    indexed = with_words_indexed(dataset)
    has_headers = has_index(indexed, "header")
    return indexed.scanner(
        columns=[*columns, "_score"],
        filter=predicate,
        prefilter=predicate is not None,
        full_text_query=MultiMatchQuery(question, ["text", "header"]) if has_headers else MatchQuery(question, "text"),
        limit=limit,
    ).to_table()


def with_words_indexed(dataset: lance.LanceDataset) -> lance.LanceDataset:
    """The dataset itself, or, if its words are not indexed, a copy in memory without vectors whose words are.

    Raises:
        TextIndexMissingError: The table is too large to be copied.
    """
    return dataset if has_index(dataset, "text") else _indexed_in_memory(dataset)


def has_index(dataset: lance.LanceDataset, column: str) -> bool:
    """Whether a column of words has an index. Without one, Lance splits text into other words."""
    return any(index.field_names == [column] for index in dataset.describe_indices())


def _indexed_in_memory(dataset: lance.LanceDataset) -> lance.LanceDataset:
    """A copy in memory with the index that the table would have, so that results do not depend on the stored index."""
    rows = dataset.count_rows()
    if rows > _MAX_ROWS_INDEXED_IN_MEMORY:
        raise TextIndexMissingError(f"The words of {counted(rows, 'chunk')} are not indexed yet")
    names = [name for name in dataset.schema.names if name != "vector"]  # a filter may name any of them
    copy = lance.write_dataset(dataset.scanner(columns=names).to_reader(), _MEMORY)
    copy.create_scalar_index("text", "INVERTED")
    if copy.count_rows(HAS_HEADER):
        copy.create_scalar_index("header", "INVERTED")
    return copy
