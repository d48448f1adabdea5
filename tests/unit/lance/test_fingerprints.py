"""Fingerprints are equal where rows are, and tell where they are not."""

from __future__ import annotations

from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa

from ingest_pipeline.lance.checks.fingerprints import Fingerprints, TableRows, differing, row_hashes, uuid_words
from ingest_pipeline.types import text_hash

WIDTH = 4


def table(documents: list[str], texts: list[str], ids: list[UUID], saga: UUID) -> pa.RecordBatch:
    count = len(texts)
    vectors = pa.FixedSizeListArray.from_arrays(np.ones(count * WIDTH, np.float32), WIDTH)
    return pa.record_batch(
        {
            "id": [str(number) for number in ids],
            "document": documents,
            "ordinal": pa.array(range(count), pa.int32()),
            "start_offset": pa.array([0] * count, pa.int64()),
            "end_offset": pa.array([len(text) for text in texts], pa.int64()),
            "page": pa.array([1, *[None] * (count - 1)], pa.int32()),
            "last_page": pa.array([2, *[None] * (count - 1)], pa.int32()),
            "heading": pa.array([None, *["One > Two"] * (count - 1)], pa.string()),
            "header": pa.array([None] * count, pa.string()),
            "text": texts,
            "text_hash": [str(text_hash(text)) for text in texts],
            "saga": [str(saga)] * count,
            "vector": vectors,
        }
    )


def rows() -> pa.RecordBatch:
    return table(["a", "b", "a"], ["one", "zwei", "trois é"], [UUID(int=number) for number in (1, 2, 3)], UUID(int=9))


def read(*batches: pa.RecordBatch) -> TableRows:
    found = TableRows({"a": 0, "b": 1}, Fingerprints.of(2))
    for batch in batches:
        found.add(batch)
    return found


def changed(batch: pa.RecordBatch, column: str, values: pa.Array) -> pa.RecordBatch:
    return batch.set_column(batch.schema.get_field_index(column), column, values)


def test_the_order_and_the_blocks_of_rows_do_not_matter() -> None:
    batch = rows()
    one, other = read(batch), read(batch.slice(2, 1), batch.slice(0, 2))
    assert list(differing(one.prints, other.prints)) == []
    assert one.suspects == other.suspects == set()


def test_one_changed_field_identifies_the_document() -> None:
    one = read(rows()).prints
    for column, values in (
        ("id", pa.array([str(UUID(int=number)) for number in (1, 7, 3)])),
        ("ordinal", pa.array([0, 7, 2], pa.int32())),
        ("saga", pa.array([str(UUID(int=number)) for number in (9, 8, 9)])),
        ("page", pa.array([1, 3, None], pa.int32())),
        ("last_page", pa.array([2, 3, None], pa.int32())),
        ("heading", pa.array([None, "One > Three", "One > Two"])),
        ("heading", pa.array([None, None, "One > Two"])),
    ):
        assert list(differing(one, read(changed(rows(), column, values)).prints)) == [1], column


def test_a_missing_row_or_one_of_an_unknown_document_is_found() -> None:
    batch = rows()
    assert list(differing(read(batch).prints, read(batch.slice(0, 2)).prints)) == [0]
    strange = read(batch, table(["c"], ["vier"], [uuid4()], UUID(int=9)))
    assert list(differing(read(batch).prints, strange.prints)) == [2]
    assert strange.keys["c"] == 2


def test_rows_that_are_invalid_in_themselves_are_found() -> None:
    for column, values in (
        ("text", pa.array(["one", "drei", "trois é"])),
        ("header", pa.array([None, "One > Two", None])),
        ("end_offset", pa.array([3, 5, 7], pa.int64())),
        ("id", pa.array([str(UUID(int=1)), "no id", str(UUID(int=3))])),
        ("id", pa.array([str(UUID(int=1)), "g" * 36, str(UUID(int=3))])),
    ):
        assert read(changed(rows(), column, values)).suspects == {1}, column
    flat = np.ones(3 * WIDTH, np.float32)
    flat[WIDTH] = np.nan
    assert read(changed(rows(), "vector", pa.FixedSizeListArray.from_arrays(flat, WIDTH))).suspects == {1}


def test_a_duplicate_id_is_found_in_any_document() -> None:
    assert read(rows()).duplicates() == set()
    assert read(rows(), rows().slice(1, 1)).duplicates() == {1}


def test_ids_are_read_as_they_are_written() -> None:
    ids = [uuid4() for _ in range(5)]
    words, good = uuid_words(pa.array([str(number) for number in ids]))
    assert [(int(high) << 64) | int(low) for high, low in words] == [number.int for number in ids]
    assert good.all()


def test_hashes_of_different_rows_differ() -> None:
    count = 1000
    uuids = [np.zeros((count, 2), np.uint64) for _ in range(3)]
    numbers = np.arange(count, dtype=np.int64)
    zero = np.zeros(count, np.int64)
    assert (
        len({*row_hashes(uuids, numbers, zero, zero).tolist(), *row_hashes(uuids, zero, numbers, zero).tolist()})
        == 1999
    )
