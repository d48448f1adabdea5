"""Objects whose ETags are weak, as a proxy that compresses makes them: read, and never taken for another."""

from __future__ import annotations

from collections.abc import Generator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ingest_pipeline.errors import DocumentChangedError
from ingest_pipeline.sources.object_store import ObjectSource

pytestmark = pytest.mark.promise("source-faults")


class _WeakStore(BaseHTTPRequestHandler):
    """As much of S3 as one object takes, behind a proxy that compresses and so makes the ETags weak."""

    body = b"the text of the object"
    etag = 'W/"1"'
    modified = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self._answer(200, self._listing(), {})
        elif "If-Match" in self.headers:
            self._answer(412, b"", {})  # true of no weak ETag
        else:
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = self.body[int(first) : int(last or len(self.body)) + 1]
            self._answer(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(self.body)}"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  of the protocol
        pass

    def _listing(self) -> bytes:
        listed = (
            f"<Key>a.txt</Key><Size>{len(self.body)}</Size><ETag>{self.etag.replace(chr(34), '&quot;')}</ETag>"
            f"<LastModified>{self.modified:%Y-%m-%dT%H:%M:%S}.123Z</LastModified>"
        )
        return f"<ListBucketResult><KeyCount>1</KeyCount><Contents>{listed}</Contents></ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.modified, usegmt=True),
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def weak_store(monkeypatch: pytest.MonkeyPatch) -> Generator[type[_WeakStore]]:
    class Store(_WeakStore):
        """Of this test alone."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield Store
        server.shutdown()


def test_an_object_with_a_weak_etag_is_read(weak_store: type[_WeakStore]) -> None:
    source = ObjectSource("s3://bucket")
    [found] = source.list()
    assert found.etag == 'W/"1"'
    assert b"".join(source.read(found)) == weak_store.body


@pytest.mark.parametrize(
    "change",
    [{"etag": 'W/"2"'}, {"body": b"the text of another"}, {"modified": datetime(2026, 1, 2, 3, 4, 9, tzinfo=UTC)}],
)
def test_an_object_with_a_weak_etag_that_changed_is_not_read(
    weak_store: type[_WeakStore], change: dict[str, Any]
) -> None:
    """A weak ETag may stay the same when the bytes change; then size and time have to be the same as well."""
    source = ObjectSource("s3://bucket")
    [found] = source.list()
    for name, value in change.items():
        setattr(weak_store, name, value)
    with pytest.raises(DocumentChangedError):
        b"".join(source.read(found))
