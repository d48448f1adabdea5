"""A server that speaks the OpenAI embeddings protocol on 127.0.0.1: request checks, limits, counters, connections.

The subclasses embed: the embedding server of the tests and the endpoint of the benchmarks.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import sys
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from typing import Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 8192
MAX_REQUEST_TOKENS = 300_000
MAX_BODY_BYTES = 64 << 20

Vectors: TypeAlias = NDArray[np.float32]
Payload: TypeAlias = dict[str, object]


class RequestRefusedError(Exception):
    """A request that the API would refuse.

    Args:
        status: HTTP status of the answer.
        message: What is wrong with the request, in a sentence.
        param: The field at fault.
        code: OpenAI's name for the problem, if there is one.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.payload: Payload = {
            "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        }


@dataclass(frozen=True, slots=True)
class ServerStats:
    """Counters of the server since it started. An embedded text counts even if the answer was lost."""

    requests: int = 0
    """Embedding requests received, refused ones included."""
    inputs: int = 0
    """Texts embedded."""
    tokens: int = 0
    """Tokens of these texts."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A request body that is well formed."""

    model: str
    texts: list[str]
    dimensions: int | None
    as_base64: bool

    @classmethod
    def parse(cls, body: bytes) -> EmbeddingRequest:
        """Read a body.

        Raises:
            RequestRefusedError: The body is not JSON, or a field has a value that the API refuses.
        """
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise RequestRefusedError(400, "The body is not a JSON object.")
        fields = cast("dict[str, object]", fields)
        model, dimensions = fields.get("model"), fields.get("dimensions")
        if not isinstance(model, str):
            raise RequestRefusedError(400, "You must provide a model parameter.", "model")
        if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
            raise RequestRefusedError(400, "Invalid 'dimensions': expected a positive integer.", "dimensions")
        encoding = fields.get("encoding_format") or "float"
        if encoding not in {"float", "base64"}:
            raise RequestRefusedError(400, "Invalid 'encoding_format': not float or base64.", "encoding_format")
        return cls(model, _texts_of(fields.get("input")), dimensions, encoding == "base64")


def _texts_of(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RequestRefusedError(400, "Invalid 'input': expected a string or a list of strings.", "input")
    texts = cast("list[object]", texts)
    if len(texts) > MAX_INPUTS:
        raise RequestRefusedError(400, f"Invalid 'input': at most {MAX_INPUTS} inputs are accepted.", "input")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestRefusedError(400, f"Invalid 'input[{index}]': only strings are accepted.", "input")
        if not text:
            raise RequestRefusedError(400, f"Invalid 'input[{index}]': input cannot be an empty string.", "input")
    return cast("list[str]", texts)


class EmbeddingHandler(BaseHTTPRequestHandler):
    """One connection, kept open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body are sent in one segment

    @property
    def api(self) -> ProtocolServer:
        """The server that accepted the connection."""
        return cast("ProtocolServer", self.server)

    def do_GET(self) -> None:
        """Answer the routes that describe the server."""
        payload = self.api.describe(self.path)
        if payload is None:
            self.refuse(404, f"Unknown path {self.path}.")
        else:
            self.send_json(200, payload)

    def do_POST(self) -> None:
        """Answer an embedding request."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # what follows is the unread body, not a request
            self.refuse(413, f"A body of a declared length up to {MAX_BODY_BYTES} bytes is expected.")
            return
        body = self.rfile.read(int(length))
        if self.path == "/v1/embeddings":
            self.api.reply(self, body)
        else:
            self.refuse(404, f"Unknown path {self.path}.")

    def refuse(self, status: int, message: str) -> None:
        """Send an error as the API words it."""
        self.send_json(status, RequestRefusedError(status, message).payload)

    def send_json(self, status: int, payload: object, headers: dict[str, str] | None = None) -> None:
        """Send one answer."""
        body = json.dumps(payload).encode()
        self.send_response(HTTPStatus(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Log nothing, because a line for each request would hide the program's own output."""


class ProtocolServer(ThreadingTCPServer):
    """The server, on 127.0.0.1; as a context manager it serves from a thread and ends with the block.

    Args:
        port: Port to listen on; 0 picks a free one.

    Raises:
        OSError: The port is taken.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # clients open many connections at once; the default of 5 would drop some

    def __init__(self, port: int = 0) -> None:
        self._counting = Lock()
        self._counted = ServerStats()
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), EmbeddingHandler)

    @property
    def base_url(self) -> str:
        """The base URL for a client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def stats(self) -> ServerStats:
        """The counters since the server started."""
        with self._counting:
            return self._counted

    def models(self) -> list[str]:
        """Names of the models served."""
        return []

    def encode(self, request: EmbeddingRequest) -> tuple[Vectors, list[int]]:
        """Embed texts.

        Returns:
            Vectors of shape (n, dimensions), and the tokens of each text.

        Raises:
            RequestRefusedError: A text is too long, or the model is not that wide.
        """
        raise NotImplementedError

    def answer(self, request: EmbeddingRequest) -> Payload:
        """The API's answer to a request, whose texts count as embedded.

        Raises:
            RequestRefusedError: The API would refuse the request.
        """
        if request.model not in self.models():
            message = f"The model '{request.model}' does not exist or you do not have access to it."
            raise RequestRefusedError(404, message, "model", "model_not_found")
        vectors, lengths = self.encode(request)
        self._count(inputs=len(lengths), tokens=sum(lengths))
        encoded = [_base64(vector) if request.as_base64 else vector.tolist() for vector in vectors]
        data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(encoded)]
        usage = {"prompt_tokens": sum(lengths), "total_tokens": sum(lengths)}
        return {"object": "list", "data": data, "model": request.model, "usage": usage}

    def reply(self, connection: EmbeddingHandler, body: bytes) -> None:
        """Answer an embedding request on its connection."""
        self._count(requests=1)
        try:
            status, payload = 200, self.answer(EmbeddingRequest.parse(body))
        except RequestRefusedError as refused:
            status, payload = refused.status, refused.payload
        connection.send_json(status, payload)

    def describe(self, path: str) -> Payload | None:
        """The answer to a GET of this path; None if there is none."""
        match path:
            case "/health":
                return {"status": "ok"}
            case "/stats":
                return asdict(self.stats())
            case "/v1/models":
                cards = [{"id": name, "object": "model", "owned_by": "local"} for name in self.models()]
                return {"object": "list", "data": cards}
            case _:
                return None

    def _count(self, *, requests: int = 0, inputs: int = 0, tokens: int = 0) -> None:
        with self._counting:
            was = self._counted
            self._counted = ServerStats(was.requests + requests, was.inputs + inputs, was.tokens + tokens)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and remember it, so that it can be closed when the server is."""
        connection, address = super().get_request()
        with self._counting:
            self._connections.add(connection)
        return connection, address

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close a connection and forget it."""
        if isinstance(request, socket.socket):
            with self._counting:
                self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's signature
        """Log an error in a connection's thread, unless the client only closed the connection."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            logging.getLogger(__name__).error("A request from %s failed", client_address, exc_info=error)

    def __enter__(self) -> Self:
        # A short poll: `shutdown` waits for it to end.
        Thread(target=self.serve_forever, args=(0.02,), name="embeddings-server", daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()
        with self._counting:
            connections = list(self._connections)
        for connection in connections:
            # Wakes the thread that waits for the next request; the thread then closes the socket.
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client closed it first


def check_lengths(lengths: list[int]) -> None:
    """Refuse inputs that the API would refuse as too long.

    Args:
        lengths: Tokens of each input.

    Raises:
        RequestRefusedError: An input, or all of them together, are over the documented limits.
    """
    for index, length in enumerate(lengths):
        if length > MAX_INPUT_TOKENS:
            raise RequestRefusedError(
                400,
                f"Invalid 'input[{index}]': maximum context length is {MAX_INPUT_TOKENS} tokens, not {length}.",
                "input",
            )
    if sum(lengths) > MAX_REQUEST_TOKENS:
        raise RequestRefusedError(
            400,
            f"Requested {sum(lengths)} tokens, max {MAX_REQUEST_TOKENS} tokens per request.",
            "input",
            "max_tokens_per_request",
        )


def _base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
