"""How texts are packed into requests: within both limits, in order, and as full as they allow."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from ingest_pipeline.embedding.base import OpenAISettings, pack
from tests.support.servers.embedding_server import TEST_MODEL

pytestmark = pytest.mark.promise("embedding-faults")


def packing(**limits: Any) -> OpenAISettings:
    return replace(OpenAISettings(TEST_MODEL, dimensions=32), **limits)


def test_batches_keep_the_order_and_stay_below_both_limits() -> None:
    texts = [chr(ord("a") + number % 26) * (1 + number * 7 % 90) for number in range(500)]
    batches = list(pack(texts, packing(batch_inputs=16, batch_tokens=600), str))
    assert list(chain.from_iterable(batches)) == texts
    assert max(map(len, batches)) == 16
    assert max(sum(map(len, batch)) for batch in batches) <= 600


def test_batches_are_as_large_as_the_limits_allow() -> None:
    texts = ["x" * 10] * 7
    assert [len(batch) for batch in pack(texts, packing(batch_tokens=30), str)] == [3, 3, 1]
    assert [len(batch) for batch in pack(texts, packing(batch_inputs=7), str)] == [7]
    assert list(pack([], packing(), str)) == []


def test_tokens_are_bounded_by_bytes_not_characters() -> None:
    assert [len(batch) for batch in pack(["\N{ROCKET}"] * 4, packing(batch_tokens=8), str)] == [2, 2]


def test_a_text_over_the_limit_is_sent_alone() -> None:
    assert [len(batch) for batch in pack(["a", "b" * 50, "c"], packing(batch_tokens=10), str)] == [1, 1, 1]
    assert [len(batch) for batch in pack(["b" * 50, "c"], packing(batch_tokens=10), str)] == [1, 1]


def test_packing_for_a_gpu_sorts_by_length_and_counts_the_padding() -> None:
    texts = ["a" * size for size in (400, 4, 8, 400, 12, 4, 90)]
    batches = list(pack(texts, packing(padded_tokens=200), str))
    assert [[len(text) for text in batch] for batch in batches] == [[400, 400], [90, 12, 8, 4, 4]]
    assert sorted(text for batch in batches for text in batch) == sorted(texts)
    assert [len(batch) for batch in pack(texts, packing(padded_tokens=1), str)] == [1] * 7, (
        "each has a batch of its own"
    )
    assert [len(batch) for batch in pack(texts, packing(padded_tokens=200, batch_inputs=2), str)] == [2, 2, 2, 1]
    assert [len(batch) for batch in pack(texts, packing(padded_tokens=10**6, batch_tokens=800), str)] == [2, 5]


def test_packing_reads_no_further_than_its_batch() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    assert next(pack(items(), packing(batch_inputs=5), str)) == [0, 1, 2, 3, 4]
    assert len(read) == 6
