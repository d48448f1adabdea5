"""Conditional writes go to the table's folder, and over HTTP only if the user allows it."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote

import obstore
import pytest
from obstore import exceptions

from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.versions.manifest_objects import put_object
from ingest_pipeline.lance.versions.manifests import put_manifest
from ingest_pipeline.lance.versions.object_store import open_folder
from ingest_pipeline.lance.versions.store_check import check_store

if TYPE_CHECKING:
    from obstore.store import RetryConfig

pytestmark = pytest.mark.promise("trusted-stores")

_numbers = count()
NO_RETRIES: RetryConfig = {"max_retries": 0}
URLS = {
    "s3": "s3://{}/a%20b/docs.lance",
    "gs": "gs://{}/a%20b/docs.lance",
    "az": "az://{}/a%20b/docs.lance",
    "abfss": "abfss://{}@account.dfs.core.windows.net/a%20b/docs.lance",
}
FOLDERS = {
    "s3": "/{}/a b/docs.lance",
    "gs": "/{}/a b/docs.lance",
    "az": "/account/{}/a b/docs.lance",
    "abfss": "/account/{}/a b/docs.lance",
}
ALLOW_HTTP = {"gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP", "abfss": "AZURE_ALLOW_HTTP"}


class _Handler(BaseHTTPRequestHandler):
    """Accepts the creation of an object once, as S3, Google and Azure do."""

    created: list[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(self.path)
        is_creation = self.headers["If-None-Match"] == "*" or self.headers["x-goog-if-generation-match"] == "0"
        if is_creation and path in self.created:
            self._answer(409 if path.startswith("/account/") else 412)
        else:
            self.created.append(path if is_creation else f"overwritten: {path}")
            self._answer(201)

    def do_DELETE(self) -> None:
        self._answer(204)

    def do_POST(self) -> None:
        self._answer(202)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str]]:
    """The paths of the objects that were created on a server that all clients reach over HTTP."""
    paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"created": paths}))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    google = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(google),
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
        "AZURE_STORAGE_ENDPOINT": f"{url}/account",
    }.items():
        monkeypatch.setenv(name, value)
    yield paths
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket() -> str:
    """A bucket for each test, because opened folders are kept."""
    return f"bucket{next(_numbers)}"


@pytest.mark.parametrize("scheme", URLS)
def test_both_writes_create_objects_in_the_folder_of_the_table(
    scheme: str, bucket: str, created: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme in ALLOW_HTTP:
        monkeypatch.setenv(ALLOW_HTTP[scheme], "true")
    uri, folder = URLS[scheme].format(bucket), FOLDERS[scheme].format(bucket)
    check_store(uri)
    assert put_object(uri, storage_options(uri), "_versions/1.manifest", b"one", replace=False)
    assert not put_object(uri, storage_options(uri), "_versions/1.manifest", b"two", replace=False)
    assert [path.rpartition("/")[0] for path in created] == [f"{folder}/_transactions", f"{folder}/_versions"]
    assert created[1] == f"{folder}/_versions/1.manifest"


@pytest.mark.parametrize("scheme", ALLOW_HTTP)
def test_without_permission_nothing_is_sent_over_http(
    scheme: str, bucket: str, created: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    uri = URLS[scheme].format(bucket)
    with pytest.raises(exceptions.BaseError):
        obstore.put(open_folder(uri, storage_options(uri), {}, NO_RETRIES), "name", b"", mode="create")
    with caplog.at_level(logging.WARNING):
        check_store(uri)
    assert "could not be checked for conditional writes" in caplog.text
    assert created == []


def test_the_variable_of_s3_allows_http_as_for_lance(
    bucket: str, created: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = URLS["s3"].format(bucket)
    with pytest.raises(exceptions.BaseError):
        obstore.put(open_folder(uri, {}, {}, NO_RETRIES), "name", b"", mode="create")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    obstore.put(open_folder(uri, {}, {}, NO_RETRIES), "name", b"", mode="create")
    assert created == [f"{FOLDERS['s3'].format(bucket)}/name"]


def test_a_store_that_cannot_be_opened_is_reported_and_left_to_the_creation(
    created: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with caplog.at_level(logging.WARNING):
        check_store("az://box/docs.lance")
    assert "az://box/docs.lance could not be checked for conditional writes: " in caplog.text
    assert created == []


def test_a_local_manifest_needs_no_object_store(tmp_path: Path) -> None:
    folder = tmp_path / "a b" / "_versions"
    folder.mkdir(parents=True)
    (folder / "staged").write_bytes(b"one")
    uri = (tmp_path / "a b").as_uri()
    check_store(uri)
    assert put_manifest(uri, {}, 1, "staged", b"", replace=False)
    assert not put_manifest(uri, {}, 1, "staged", b"", replace=False)
    assert len(list(folder.glob("*.manifest"))) == 1
