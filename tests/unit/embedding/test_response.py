"""Answers of an embeddings API in the usual form and in other forms."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from ingest_pipeline.embedding._response import parse_answer, read_answer

_VECTORS = np.array([[1.5, -2.0, 0.25], [3.0, 0.5, -1.0]], dtype="<f4")
_IN_BASE64 = [base64.b64encode(vector.tobytes()).decode() for vector in _VECTORS]


def body_of(*embeddings: object, **others: object) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, "usage": {"total_tokens": 7}, **others}).encode()


@pytest.mark.parametrize("embeddings", [_IN_BASE64, _VECTORS.tolist(), [_IN_BASE64[0], _VECTORS[1].tolist()]])
def test_vectors_are_read_in_base64_and_as_numbers(embeddings: list[object]) -> None:
    vectors, tokens = read_answer(parse_answer(body_of(*embeddings)), 2, 3)
    assert (vectors.tolist(), tokens) == (_VECTORS.tolist(), 7)


def test_the_usual_form_is_decoded_while_it_is_parsed() -> None:
    answer = parse_answer(body_of(*_IN_BASE64))
    assert isinstance(answer, dict)
    assert [item["embedding"] for item in answer["data"]] == [vector.tobytes() for vector in _VECTORS]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (body_of("?" * 16, _IN_BASE64[1]), "a vector that cannot be decoded"),
        (body_of(_IN_BASE64[0][:-4], _IN_BASE64[1]), "a vector that cannot be decoded"),
        (body_of(base64.b64encode(bytes(8)).decode(), _IN_BASE64[1]), "a vector of 2 dimensions instead of 3"),
        (body_of(_IN_BASE64[0]), "1 vector for 2 inputs"),
        (body_of(*_IN_BASE64).replace(b'"index": 1', b'"index": true'), "the index True twice or out of range"),
        (body_of(*_IN_BASE64).replace(b'"index": 1', b'"index": 1.0'), "the index 1.0 twice or out of range"),
        (body_of(*_IN_BASE64).replace(b'"index": 1', b'"index": 0'), "the index 0 twice or out of range"),
        (b'{"error": "busy"}', "no data but 'busy'"),
        (b"[]", "the answer that is not an object"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(body: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_answer(parse_answer(body), 2, 3)


@pytest.mark.parametrize("body", [b"", b'{"data": [', b"<html>"])
def test_what_is_not_json_is_an_error(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_answer(body)
