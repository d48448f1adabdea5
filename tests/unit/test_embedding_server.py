"""The embedding server of the tests: its protocol, its limits, its counters, and its connections."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import numpy as np
import openai
import pytest

from tests.support.servers.embedding_server import NARROWING_MODEL, TEST_MODEL, EmbeddingServer
from tests.support.servers.embeddings_protocol import ProtocolServer, ServerStats


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


def call(server: ProtocolServer, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
    try:
        connection.request(method, path, body if isinstance(body, (str, bytes)) else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def embed(server: EmbeddingServer, texts: object, **fields: object) -> tuple[int, Any]:
    return call(server, "POST", "/v1/embeddings", {"model": TEST_MODEL, "input": texts, **fields})


def vectors(server: EmbeddingServer, texts: list[str], **fields: object) -> np.ndarray:
    status, answer = embed(server, texts, **fields)
    assert status == 200, answer
    assert [item["index"] for item in answer["data"]] == list(range(len(texts)))
    return np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)


def test_a_string_and_a_list_of_it_get_the_same_unit_vector(shared: EmbeddingServer) -> None:
    _, alone = embed(shared, "a cat")
    listed = vectors(shared, ["a cat"])
    assert listed.shape == (1, 32)
    assert np.array_equal(np.array([alone["data"][0]["embedding"]], dtype=np.float32), listed)
    assert np.linalg.norm(listed) == pytest.approx(1, abs=1e-6)


def test_base64_holds_the_same_vectors(shared: EmbeddingServer) -> None:
    with openai.OpenAI(base_url=shared.base_url, api_key="none") as client:
        answer = client.embeddings.create(model=TEST_MODEL, input=["a cat", "a dog"])
    assert np.array_equal(
        np.array([item.embedding for item in answer.data], dtype=np.float32), vectors(shared, ["a cat", "a dog"])
    )
    assert answer.usage.total_tokens == 4


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"input": ""}, 400, "input[0]"),
        ({"input": ["fine", ""]}, 400, "input[1]"),
        ({"input": []}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"input": [[1, 2]]}, 400, "input[0]"),
        ({"input": ["x"] * 2049}, 400, "2048"),
        ({"input": ["fine", "a " * 17_000]}, 400, "'input[1]': maximum context length is 8192"),
        ({"input": ["a " * 16_000] * 38}, 400, "max 300000 tokens per request"),
        ({"model": "text-embedding-4"}, 404, "text-embedding-4"),
        ({"model": None}, 400, "model"),
        ({"dimensions": 257}, 400, "dimensions"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"dimensions": True}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
    ],
)
def test_requests_that_openai_refuses_are_refused_and_not_counted_as_embedded(
    shared: EmbeddingServer, fields: dict[str, object], status: int, says: str
) -> None:
    before = shared.stats()
    got, answer = embed(shared, **{"texts": "x", **fields})
    assert got == status
    assert says in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert (shared.stats().inputs, shared.stats().tokens) == (before.inputs, before.tokens)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff\xfe", b""])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with ProtocolServer() as server:
        status, answer = call(server, "POST", "/v1/embeddings", body)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


def test_a_body_too_large_is_refused_unread(shared: EmbeddingServer) -> None:
    connection = HTTPConnection("127.0.0.1", shared.server_address[1], timeout=300)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert response.will_close or response.read()
    connection.close()


def test_an_unknown_path_is_not_found(shared: EmbeddingServer) -> None:
    assert call(shared, "GET", "/nothing")[0] == 404
    assert call(shared, "POST", "/v1/completions", {})[0] == 404


def test_models_and_health_are_described(shared: EmbeddingServer) -> None:
    assert call(shared, "GET", "/health") == (200, {"status": "ok"})
    assert [model["id"] for model in call(shared, "GET", "/v1/models")[1]["data"]] == [TEST_MODEL, NARROWING_MODEL]


def test_stats_count_embedded_texts(server: EmbeddingServer) -> None:
    embed(server, ["a cat", "a dog"])
    embed(server, [""])
    assert server.stats() == ServerStats(requests=2, inputs=2, tokens=4)
    assert call(server, "GET", "/stats")[1] == {"requests": 2, "inputs": 2, "tokens": 4}


def test_stats_lose_nothing_under_concurrency(server: EmbeddingServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(embed, server, [f"text {number}", "b"]) for number in range(64)]
    assert {answer.result()[0] for answer in answers} == {200}
    assert (server.stats().requests, server.stats().inputs) == (64, 128)


def test_one_connection_carries_many_requests(shared: EmbeddingServer) -> None:
    connection = HTTPConnection("127.0.0.1", shared.server_address[1], timeout=300)
    connection.connect()
    port = connection.sock.getsockname()
    for _ in range(3):
        connection.request("POST", "/v1/embeddings", json.dumps({"model": TEST_MODEL, "input": "x"}))
        assert connection.getresponse().read()
        assert connection.sock.getsockname() == port
    connection.close()


def test_a_stopped_server_does_not_answer_even_on_an_open_connection() -> None:
    with EmbeddingServer() as server:
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=300)
        connection.request("GET", "/health")
        connection.getresponse().read()
    kept = connection.sock
    assert kept.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection("127.0.0.1", server.server_address[1], timeout=300).connect()


def test_a_failing_request_is_logged_and_the_server_lives(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(server, "encode", fail)
        with pytest.raises(ConnectionError):
            embed(server, "x")
    assert "failed" in caplog.text
    assert embed(server, "x")[0] == 200
