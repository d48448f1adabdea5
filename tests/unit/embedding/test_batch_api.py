"""The requests of a batch as a file, and its answers as vectors; damaged answers cost no others."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from ingest_pipeline.chunking.content_defined import Chunker
from ingest_pipeline.embedding.base import OpenAISettings
from ingest_pipeline.embedding.batch_api import BatchApi, BatchOutput
from ingest_pipeline.embedding.openai import OpenAIEmbedder

_TEXTS = {0: 2, 1: 1}
"""How many texts each request has."""


def api(model: str = "text-embedding-3-small", **options: Any) -> BatchApi:
    return BatchApi(OpenAIEmbedder(OpenAISettings(model, 3, base_url="http://127.0.0.1:9/v1", **options)))


def vector(*values: float) -> str:
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


def line(number: object, vectors: list[str], tokens: int = 5) -> bytes:
    data = [{"index": index, "embedding": embedding} for index, embedding in enumerate(vectors)]
    body = {"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return json.dumps({"custom_id": str(number), "response": {"body": body}}).encode()


def parse(*lines: bytes) -> BatchOutput:
    return api().parse(b"\n".join(lines), lambda number: _TEXTS.get(number, 0))


def test_answers_are_found_by_the_number_of_their_request_in_any_order() -> None:
    output = parse(line(1, [vector(0, 1, 0)], 7), line(0, [vector(1, 0, 0), vector(0, 0, 1)]))
    assert {number: tokens for number, (_, tokens) in output.answers.items()} == {0: 5, 1: 7}
    assert output.answers[0][0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert (output.unusable_texts, output.unusable_tokens, output.unusable_requests) == (0, 0, 0)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"custom_id": "1"}',
        b'{"custom_id": "1", "response": null}',
        line("x", [vector(1, 0, 0)]),
        line(2, [vector(1, 0, 0)]),
        line(-1, [vector(1, 0, 0)]),
    ],
)
def test_a_damaged_line_and_an_answer_to_no_request_are_skipped(damaged: bytes) -> None:
    output = parse(damaged, line(1, [vector(0, 1, 0)]))
    assert list(output.answers) == [1]
    assert output.unusable_requests == 0


@pytest.mark.parametrize("vectors", [[vector(1, 0, 0)], [vector(1, 0, 0), vector(1, 0)], [vector(1, 0, 0)] * 3])
def test_the_tokens_of_an_answer_without_usable_vectors_are_counted(vectors: list[str]) -> None:
    output = parse(line(0, vectors), line(1, [vector(0, 1, 0)]))
    assert list(output.answers) == [1]
    assert (output.unusable_texts, output.unusable_tokens, output.unusable_requests) == (2, 5, 1)


@pytest.mark.parametrize(("model", "dimensions"), [("text-embedding-3-small", 3), ("other", None)])
def test_the_file_has_one_numbered_line_for_each_request(model: str, dimensions: int | None) -> None:
    lines = api(model)._lines(["a", "b", "c"], 2).splitlines()  # pyright: ignore[reportPrivateUsage]
    requests = [json.loads(one) for one in lines]
    assert [one["custom_id"] for one in requests] == ["0", "1"]
    assert [one["body"]["input"] for one in requests] == [["a", "b"], ["c"]]
    assert {one["body"].get("dimensions") for one in requests} == {dimensions}
    assert {(one["method"], one["url"], one["body"]["model"]) for one in requests} == {
        ("POST", "/v1/embeddings", model)
    }


@pytest.mark.parametrize(
    ("chunk_size", "inputs", "tokens", "texts"), [(1000, 128, 300_000, 75), (1000, 50, 300_000, 50), (9000, 128, 1, 1)]
)
def test_no_request_exceeds_a_limit_even_if_each_byte_is_a_token(
    chunk_size: int, inputs: int, tokens: int, texts: int
) -> None:
    most = Chunker(chunk_size, 0).max_tokens
    assert api(batch_inputs=inputs, batch_tokens=tokens).texts_a_request(most) == texts
