"""A reranker is asked in the words that it knows, and gives up in time; an answer that is none is refused."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from ingest_pipeline.embedding.certificates import trusted_certificates
from ingest_pipeline.errors import (
    ConfigurationError,
    RerankerAccessError,
    RerankerResponseError,
    RerankerUnavailableError,
)
from ingest_pipeline.search import rerank_endpoint
from ingest_pipeline.search.rerank_endpoint import RerankEndpoint, RerankSettings, read_scores
from tests.support.servers.ports import free_port

Answer = Callable[[dict[str, Any]], tuple[int, object]]


class Server:
    """A reranker over HTTP that answers as the test says."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Answer = cohere
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.keys.append(self.headers["Authorization"])
                status, answer = server.answer(body)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(BrokenPipeError):  # the client has given up
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the base
                """Be silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/rerank"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank_endpoint, "_FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def cohere(body: dict[str, Any]) -> tuple[int, object]:
    if "documents" not in body:
        return 422, {"message": "documents is missing"}
    ranked = sorted(range(len(body["documents"])), key=lambda index: -len(body["documents"][index]))
    results = [{"index": index, "relevance_score": len(body["documents"][index]) / 100} for index in ranked]
    return 200, {"id": "1", "results": results}


def tei(body: dict[str, Any]) -> tuple[int, object]:
    if "texts" not in body:
        return 422, {"error": "missing field `texts`"}
    return 200, [{"index": index, "score": len(text) / 100} for index, text in enumerate(body["texts"])]


def ask(server: Server, *texts: str, times: int = 1, **settings: Any) -> list[float]:
    async def run() -> list[float]:
        async with RerankEndpoint(RerankSettings(server.url, **settings)) as endpoint:
            for _ in range(times - 1):
                await endpoint.rerank("question", texts)
            return await endpoint.rerank("question", texts)

    return asyncio.run(run())


@pytest.mark.parametrize("answer", [cohere, tei])
def test_scores_are_in_the_order_of_the_texts(server: Server, answer: Answer) -> None:
    server.answer = answer
    assert ask(server, "a", "abc", "ab") == [0.01, 0.03, 0.02]


def test_the_name_that_was_refused_is_not_tried_again(server: Server) -> None:
    server.answer = tei
    ask(server, "a", times=3)
    assert ["documents" in body for body in server.requests] == [True, False, False, False]


def test_the_model_and_the_key_are_sent(server: Server) -> None:
    ask(server, "a", "b", model="rerank-1", api_key="secret")
    assert server.requests == [{"query": "question", "documents": ["a", "b"], "top_n": 2, "model": "rerank-1"}]
    assert server.keys == ["Bearer secret"]


def test_the_certificates_are_those_that_all_clients_of_the_process_share(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted: list[object] = []

    class Client(httpx2.AsyncClient):
        def __init__(self, **options: Any) -> None:
            trusted.append(options.get("verify"))
            super().__init__(**options)

    monkeypatch.setattr(httpx2, "AsyncClient", Client)
    server.answer = cohere
    ask(server, "a")
    assert trusted == [trusted_certificates()]


def test_nothing_to_rerank_needs_no_request(server: Server) -> None:
    assert ask(server) == []
    assert server.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_temporary_fault_is_tried_again(server: Server, status: int) -> None:
    server.answer = lambda body: (status, {}) if len(server.requests) < 3 else cohere(body)
    assert ask(server, "a") == [0.01]
    server.answer = lambda _: (status, {})
    with pytest.raises(RerankerUnavailableError, match=f"failed 3 times, the last with status {status}"):
        ask(server, "a")


@pytest.mark.parametrize("status", [501, 505])
def test_a_server_that_cannot_rerank_at_all_is_a_wrong_setting(server: Server, status: int) -> None:
    server.answer = lambda _: (status, {"message": "not here"})
    with pytest.raises(ConfigurationError, match=rf"refused a request \({status}\).*Check INGEST_RERANK_URL"):
        ask(server, "a")
    assert len(server.requests) == 1


def test_nobody_there_is_unavailable(server: Server) -> None:
    server.url = f"http://127.0.0.1:{free_port()}/rerank"
    with pytest.raises(RerankerUnavailableError, match="failed 3 times"):
        ask(server, "a")


def test_the_deadline_holds_for_all_attempts_together(server: Server) -> None:
    server.answer = lambda body: (time.sleep(3), cohere(body))[1]
    began = time.monotonic()
    with pytest.raises(RerankerUnavailableError, match=r"no answer within 0\.5 s"):
        ask(server, "a", deadline=0.5)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_and_not_shown(server: Server, status: int) -> None:
    server.answer = lambda _: (status, {"message": "secret"})
    with pytest.raises(RerankerAccessError, match="refused the key") as caught:
        ask(server, "a", api_key="secret")
    assert "secret" not in str(caught.value)


def test_a_refused_request_says_why(server: Server) -> None:
    server.answer = lambda _: (404, {"message": "no model secret"})
    with pytest.raises(ConfigurationError, match=r"refused a request \(404\): .*no model \*\*\*.*INGEST_RERANK_URL"):
        ask(server, "a", api_key="secret")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": 3},
        {"results": [{"index": 0, "relevance_score": 1}]},
        {"results": [{"index": 0, "relevance_score": 1}, {"index": 0, "relevance_score": 1}]},
        [{"index": 0, "score": 1}, {"index": 2, "score": 1}],
        [{"index": 0, "score": 1}, {"index": -1, "score": 1}],
        [{"index": 0, "score": 1}, {"index": True, "score": 1}],
        [{"index": 0, "score": 1}, {"index": 1, "score": "1"}],
        [{"index": 0, "score": 1}, {"index": 1, "score": float("nan")}],
        [0.5, 0.5],
        None,
    ],
)
def test_an_answer_that_is_none_is_refused(server: Server, body: object) -> None:
    with pytest.raises(ValueError, match=r"^(no list|the index|the score|\d scores)"):
        read_scores(body, 2)
    server.answer = lambda _: (200, body)
    with pytest.raises(RerankerResponseError, match="answered with"):
        ask(server, "a", "b")


def test_an_answer_that_is_not_json_is_refused(server: Server) -> None:
    server.answer = lambda _: (200, b"<html>")
    with pytest.raises(RerankerResponseError):
        ask(server, "a")


@pytest.mark.promise("secrets")
def test_a_refusal_quotes_no_passage(server: Server) -> None:
    """As frameworks do that validate the body and return it as part of the error."""
    server.answer = lambda body: (400, {"detail": [{"msg": "too long", "input": body}]})
    with pytest.raises(ConfigurationError, match="too long") as refused:
        ask(server, "A passage of a secret document.", "word")
    assert "passage" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "…" in str(refused.value)
