"""An embeddings server for tests: vectors from the text's hash, artificial latency, and faults on demand.

It speaks the protocol through `embeddings_protocol`, needs no weights, and counts what was embedded. Other
processes reach it by its ``base_url``; the counters are read in the process that started it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum, auto
from threading import Event, Lock
from typing import Any, cast

import numpy as np

from tests.support.servers.embeddings_protocol import (
    EmbeddingHandler,
    EmbeddingRequest,
    Payload,
    ProtocolServer,
    RequestRefusedError,
    Vectors,
    check_lengths,
)
from tools import figures

TEST_MODEL = "test-embedding"
"""Has one width, and refuses the parameter `dimensions` as text-embedding-ada-002 does."""
NARROWING_MODEL = "text-embedding-3-small"
"""Takes the parameter `dimensions`."""
POISON = "\N{SKULL AND CROSSBONES}"
"""A text that contains this is refused as too long, whatever its length."""


class Fault(Enum):
    """A fault of one request. Only the last group and the malformed answers count as embedded."""

    RATE_LIMITED = auto()
    """429 that asks to be retried after a millisecond."""
    RATE_LIMITED_SILENTLY = auto()
    """429 without Retry-After, so that the client chooses the delay."""
    RATE_LIMITED_FOR_LONG = auto()
    """429 with a Retry-After of ten minutes."""
    QUOTA = auto()
    """429 for an account without credit."""
    SERVER_ERROR = auto()
    """500, retry after a millisecond."""
    OVERLOADED = auto()
    """503, retry after a millisecond."""
    NOT_IMPLEMENTED = auto()
    """501, retry after a millisecond."""
    OLD_PROTOCOL = auto()
    """505, retry after a millisecond."""
    UNAUTHORIZED = auto()
    """401 that quotes the key it was sent."""
    FORBIDDEN = auto()
    """403 that quotes the key it was sent."""
    TOO_LONG = auto()
    """400 about an input, without saying which."""
    QUOTES_INPUT = auto()
    """400 about an input, which it quotes."""
    BAD_PARAMETER = auto()
    """400 about another field than the input."""
    RESET = auto()
    """The connection is reset before anything is read or embedded."""

    RESET_IN_BODY = auto()
    """The connection is reset in the middle of the answer."""
    TRUNCATED_JSON = auto()
    """The answer ends early, but its declared length matches."""
    ENDLESS = auto()
    """The answer comes a byte at a time, each within any time-out."""
    WRONG_COUNT = auto()
    """The last vector is missing."""
    SHUFFLED = auto()
    """The vectors come in reverse order, with their true indices: legal."""
    DUPLICATE_INDEX = auto()
    WRONG_WIDTH = auto()
    NAN = auto()
    ZERO_VECTOR = auto()
    EMPTY_DATA = auto()
    ERROR_AS_SUCCESS = auto()
    """An error under status 200."""
    FLOATS = auto()
    """Numbers instead of base64: legal."""

    REPLY_LOST = auto()
    """The vectors are computed, and the connection is closed instead of an answer."""


def vector_of(text: str, dimensions: int) -> Vectors:
    """The unit vector that the server returns for a text, shape (dimensions,)."""
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    components = np.frombuffer(digest, dtype="<u2").astype(np.float32) - np.float32(32767.5)
    return (components / np.linalg.norm(components)).astype(np.float32)


class EmbeddingServer(ProtocolServer):
    """Serves `TEST_MODEL` and `NARROWING_MODEL` on a free port while its block runs.

    Args:
        dimensions: Width of both models.
        latency: Seconds to wait before each answer.
        max_in_flight: How many requests may be in flight at once; the others are refused with 429.
    """

    def __init__(self, dimensions: int = 32, latency: float = 0.0, max_in_flight: int | None = None) -> None:
        self.dimensions = dimensions
        self.latency = latency
        self.max_in_flight = max_in_flight
        self._script: deque[Fault] = deque()
        self._held: tuple[str, Event] | None = None
        self._state = Lock()
        self._zero()
        super().__init__()

    def _zero(self) -> None:
        self._requests = self._tokens = 0
        self._texts: Counter[str] = Counter()
        self._now = self._peak = self._refused = 0
        self._bodies: list[dict[str, Any]] = []
        self._lengths: list[list[int]] = []

    @property
    def requests(self) -> int:
        """Embedding requests received, faults included."""
        with self._state:
            return self._requests

    @property
    def embedded(self) -> int:
        """Inputs embedded, whether or not the answer arrived."""
        return self.texts.total()

    @property
    def tokens(self) -> int:
        """Billed tokens of all answers, whether or not they arrived."""
        with self._state:
            return self._tokens

    @property
    def texts(self) -> Counter[str]:
        """How often each text was embedded."""
        with self._state:
            return self._texts.copy()

    @property
    def peak(self) -> int:
        """The largest number of requests that were in flight at once."""
        with self._state:
            return self._peak

    def wait_until_quiet(self) -> None:
        """Wait until no request is in flight. Requests of a killed client may still arrive after its death."""
        seen = -1
        while True:
            with self._state:
                now, busy = self._requests, self._now > 0
            if now == seen and not busy:
                return
            seen = now
            time.sleep(0.1)

    @property
    def refused(self) -> int:
        """Requests that arrived while too many were in flight."""
        with self._state:
            return self._refused

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The body of each request, without its texts."""
        with self._state:
            return list(self._bodies)

    @property
    def lengths(self) -> list[list[int]]:
        """The lengths of the texts of each request, in UTF-8 bytes."""
        with self._state:
            return list(self._lengths)

    @contextmanager
    def holding(self, part: str) -> Generator[Event]:
        """Answer no request with a text that contains this part while the block runs, or until the event is set.

        So a client that needs the text gets no further, however long the test takes for its next step.
        """
        go = Event()
        self._held = (part, go)
        try:
            yield go
        finally:
            self._held = None
            go.set()

    def fail_next(self, fault: Fault, times: int = 1) -> None:
        """Let a fault happen to the next requests, after the faults that are already queued."""
        figures.count(f"faults of the embedding API: {fault.name.lower().replace('_', ' ')}", times)
        with self._state:
            self._script.extend([fault] * times)

    def reset_counters(self) -> None:
        """Reset the counters. Queued faults stay."""
        with self._state:
            self._zero()

    def models(self) -> list[str]:
        return [TEST_MODEL, NARROWING_MODEL]

    def encode(self, request: EmbeddingRequest) -> tuple[Vectors, list[int]]:
        if request.dimensions and request.model == TEST_MODEL:
            raise RequestRefusedError(400, "This model does not support specifying dimensions.")
        lengths = [1 + len(text) // 4 for text in request.texts]
        check_lengths([1 << 20 if POISON in text else n for text, n in zip(request.texts, lengths, strict=True)])
        with self._state:
            self._texts.update(request.texts)
            self._tokens += sum(lengths)
        width = request.dimensions or self.dimensions
        return np.stack([vector_of(text, width) for text in request.texts]), lengths

    def reply(self, connection: EmbeddingHandler, body: bytes) -> None:
        fields = json.loads(body)
        inputs = fields.pop("input", None)
        with self._state:
            self._requests += 1
            self._bodies.append(fields)
            self._lengths.append([len(str(text).encode()) for text in inputs or ()])
            self._now += 1
            self._peak = max(self._peak, self._now)
            fault = self._script.popleft() if self._script else None
            if self.max_in_flight is not None and self._now > self.max_in_flight:
                fault = Fault.RATE_LIMITED
                self._refused += 1
        try:
            held = self._held
            if held is not None and any(held[0] in str(text) for text in inputs or ()):
                held[1].wait()
            time.sleep(self.latency)
            self._reply(connection, body, fault)
        finally:
            with self._state:
                self._now -= 1

    def _reply(self, connection: EmbeddingHandler, body: bytes, fault: Fault | None) -> None:
        if fault is None:
            super().reply(connection, body)
        elif fault is Fault.RESET:
            _reset(connection)
        elif fault is Fault.QUOTES_INPUT:
            quoted = _error(f"Invalid input: '{json.loads(body)['input'][0]}'")
            connection.send_json(400, {"error": quoted})
        elif fault in _REFUSALS:
            _refuse(connection, *_REFUSALS[fault])
        else:
            self._answer_badly(connection, self.answer(EmbeddingRequest.parse(body)), fault)

    def _answer_badly(self, connection: EmbeddingHandler, answer: Payload, fault: Fault) -> None:
        data = cast("list[dict[str, Any]]", answer["data"])
        match fault:
            case Fault.REPLY_LOST:
                connection.close_connection = True
            case Fault.RESET_IN_BODY:
                _send_part(connection, json.dumps(answer).encode(), declared_as_whole=False)
                _reset(connection)
            case Fault.TRUNCATED_JSON:
                _send_part(connection, json.dumps(answer).encode(), declared_as_whole=True)
            case Fault.ENDLESS:
                _drip(connection)
            case _:
                connection.send_json(200, {**answer, **_spoilt(fault, data)})


def _error(message: str, code: str | None = None, kind: str = "invalid_request_error") -> Payload:
    return {"message": message, "type": kind, "param": None, "code": code}


_SOON = {"Retry-After-Ms": "1"}
_RATE = _error("Rate limit reached.", "rate_limit_exceeded", "tokens")
_QUOTA = _error("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
_SERVER = _error("The server had an error.", None, "server_error")
_KEY = _error("Incorrect API key provided: {key}.", "invalid_api_key")

_REFUSALS: dict[Fault, tuple[int, dict[str, str], Payload]] = {
    Fault.RATE_LIMITED: (429, _SOON, _RATE),
    Fault.RATE_LIMITED_SILENTLY: (429, {}, _RATE),
    Fault.RATE_LIMITED_FOR_LONG: (429, {"Retry-After": "600"}, _RATE),
    Fault.QUOTA: (429, _SOON, _QUOTA),
    Fault.SERVER_ERROR: (500, _SOON, _SERVER),
    Fault.OVERLOADED: (503, _SOON, _SERVER),
    Fault.NOT_IMPLEMENTED: (501, _SOON, _error("Embeddings are not implemented.", None, "server_error")),
    Fault.OLD_PROTOCOL: (505, _SOON, _error("HTTP version not supported.", None, "server_error")),
    Fault.UNAUTHORIZED: (401, {}, _KEY),
    Fault.FORBIDDEN: (403, {}, _KEY),
    Fault.TOO_LONG: (400, {}, _error("This model's maximum context length is 8192 tokens.")),
    Fault.BAD_PARAMETER: (400, {}, _error("Unrecognized request argument supplied.")),
}


def _refuse(connection: EmbeddingHandler, status: int, headers: dict[str, str], error: Payload) -> None:
    key = connection.headers.get("Authorization", "").removeprefix("Bearer ")
    quoted = {**error, "message": str(error["message"]).replace("{key}", key)}
    connection.send_json(status, {"error": quoted}, headers)


def _spoilt(fault: Fault, data: list[dict[str, Any]]) -> Payload:
    first = _floats(data[0])
    spoils: dict[Fault, Payload] = {
        Fault.WRONG_COUNT: {"data": data[:-1]},
        Fault.SHUFFLED: {"data": data[::-1]},
        Fault.DUPLICATE_INDEX: {"data": [{**item, "index": 0} for item in data]},
        Fault.WRONG_WIDTH: {"data": [{**data[0], "embedding": first[:-1]}, *data[1:]]},
        Fault.NAN: {"data": [{**data[0], "embedding": [math.nan, *first[1:]]}, *data[1:]]},
        Fault.ZERO_VECTOR: {"data": [{**data[0], "embedding": [0.0] * len(first)}, *data[1:]]},
        Fault.EMPTY_DATA: {"data": []},
        Fault.ERROR_AS_SUCCESS: {"data": None, "error": {"message": "Provider returned error."}},
        Fault.FLOATS: {"data": [{**item, "embedding": _floats(item)} for item in data]},
    }
    return spoils[fault]


def _floats(item: dict[str, Any]) -> list[float]:
    embedding: str | list[float] = item["embedding"]
    if isinstance(embedding, str):
        return cast("list[float]", np.frombuffer(base64.b64decode(embedding), dtype="<f4").tolist())
    return embedding


def _send_part(connection: EmbeddingHandler, body: bytes, *, declared_as_whole: bool) -> None:
    part = body[: len(body) // 2]
    connection.send_response(200)
    connection.send_header("Content-Type", "application/json")
    connection.send_header("Content-Length", str(len(part) if declared_as_whole else len(body)))
    connection.end_headers()
    connection.wfile.write(part)
    connection.wfile.flush()


def _drip(connection: EmbeddingHandler) -> None:
    connection.send_response(200)
    connection.send_header("Content-Length", "1000000")
    connection.end_headers()
    for _ in range(1_000_000):
        connection.wfile.write(b" ")
        connection.wfile.flush()
        time.sleep(0.02)


def _reset(connection: EmbeddingHandler) -> None:
    # A linger time of zero makes closing send RST instead of FIN.
    connection.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close_connection = True
    connection.connection.close()
