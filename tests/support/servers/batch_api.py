"""The embedding server of the tests with OpenAI's files and batches: accepted at once, ended when a test says so.

The texts of a batch count as embedded when the batch is created, so a batch job that is submitted twice is noticed.
"""

from __future__ import annotations

import json
import time
from email import message_from_bytes
from email.message import Message
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.embeddings_protocol import EmbeddingHandler, EmbeddingRequest, RequestRefusedError


class _Handler(EmbeddingHandler):
    def do_GET(self) -> None:  # noqa: N802  the name is http.server's
        api, url = cast("BatchServer", self.server), urlsplit(self.path)
        parts = url.path.split("/")[2:]
        match parts:
            case ["batches"]:
                self.send_json(200, api.page(parse_qs(url.query)))
            case ["batches", name] if name in api.batches:
                self.send_json(200, api.batches[name])
            case ["files", name, "content"] if name in api.files:
                body = api.files[name]
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            case _:
                super().do_GET()

    def do_POST(self) -> None:  # noqa: N802  likewise
        api = cast("BatchServer", self.server)
        if self.path not in {"/v1/files", "/v1/batches"}:
            super().do_POST()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/files":
            self.send_json(200, api.upload(self.headers["Content-Type"], body))
        elif api.lose_next_answer:
            api.lose_next_answer = False
            api.create(json.loads(body))
            self.close_connection = True
        else:
            self.send_json(200, api.create(json.loads(body)))


class BatchServer(EmbeddingServer):
    """The embedding server with the Batch endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = _Handler
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.lose_next_answer = False
        """The next batch is created, but the client gets no answer."""

    def upload(self, kind: str, body: bytes) -> dict[str, Any]:
        form = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        parts = cast("list[Message]", form.get_payload())
        (content,) = [part.get_payload(decode=True) for part in parts if part.get_filename()]
        name = f"file-{len(self.files)}"
        self.files[name] = cast("bytes", content)
        return {
            "id": name,
            "object": "file",
            "bytes": len(self.files[name]),
            "created_at": int(time.time()),
            "filename": "x.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["endpoint"] == "/v1/embeddings"
        assert asked["completion_window"] == "24h"
        name = f"batch_{len(self.batches)}"
        answers: list[str] = []
        for line in self.files[asked["input_file_id"]].splitlines():
            request = json.loads(line)
            try:
                answer = self.answer(EmbeddingRequest.parse(json.dumps(request["body"]).encode()))
                response: dict[str, Any] = {"status_code": 200, "body": answer}
            except RequestRefusedError as refused:
                response = {"status_code": refused.status, "body": refused.payload}
            answers.append(json.dumps({"id": name, "custom_id": request["custom_id"], "response": response}))
        # In another order, which the API may return.
        self.files[f"output-{name}"] = "\n".join(reversed(answers)).encode()
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": "24h",
            "created_at": int(time.time()),
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "status": "validating",
        }
        return self.batches[name]

    def page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of the batches, newest first; two at most, so that tests need several pages."""
        names = list(self.batches)[::-1]
        start = names.index(query["after"][0]) + 1 if "after" in query else 0
        names, more = names[start : start + 2], len(names) > start + 2
        return {"object": "list", "data": [self.batches[name] for name in names], "has_more": more}

    def finish(self, status: str = "completed", *, without: tuple[str, ...] = ()) -> None:
        """End all batches. The output lacks the requests with these numbers; an empty output has no file."""
        for name, batch in self.batches.items():
            output = f"output-{name}"
            kept = [line for line in self.files[output].splitlines() if json.loads(line)["custom_id"] not in without]
            self.files[output] = b"\n".join(kept)
            batch.update(status=status, output_file_id=output if kept else None)
