"""An S3 server in a process of its own, so that tests which kill processes, and those processes, can share it."""

import contextlib
import copy
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from html import escape, unescape
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

_ROOT = Path(__file__).parents[3]


class S3Server:
    """moto on a free port of 127.0.0.1 with one empty bucket, in memory only.

    The server fails requests on demand, see `fail_share` and `failing`.

    Args:
        bucket: Name of the bucket.
    """

    def __init__(self, bucket: str = "documents") -> None:
        self.bucket = bucket
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.servers.s3_server"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._request("PUT", f"/{self.bucket}")
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def with_bucket(self, name: str) -> Self:
        """The same server with another bucket, which is created. Faults concern all buckets."""
        other = copy.copy(self)
        other.bucket = name
        other._request("PUT", f"/{name}")
        return other

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def fail_share(self, rate: float, seed: int) -> dict[str, int]:
        """Fail this share of the requests from now on; returns the number of requests and faults so far, by kind."""
        counts: dict[str, int] = self._tell({"rate": rate, "seed": seed})
        return counts

    @contextmanager
    def failing(self, pattern: str, fault: str, *, times: int = 1_000_000, skip: int = 0) -> Generator[list[int]]:
        """Fail the requests that match a pattern, while the block runs.

        Args:
            pattern: Regular expression for ``METHOD /bucket/key?query``.
            fault: A fault of `tests.support.servers.s3_server.Rule`.
            times: Maximum number of requests to fail.
            skip: Number of matching requests that succeed first.

        Yields:
            A list that contains the number of failed requests once the block has ended.
        """
        fired: list[int] = []
        self._tell({"rules": [{"pattern": pattern, "fault": fault, "times": times, "skip": skip}]})
        try:
            yield fired
        finally:
            fired += self._tell({"rules": []})

    def requests(self) -> list[str]:
        """The requests since the last call, each ``METHOD /bucket/key?query``."""
        log: list[str] = self._tell({"log": True})
        return log

    def _tell(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @property
    def env(self) -> dict[str, str]:
        """Environment variables by which obstore, Lance and boto3 find the server."""
        return self.env_through(self.port)

    def env_through(self, port: int) -> dict[str, str]:
        """Environment variables for a proxy on 127.0.0.1 in front of the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, prefix: str = "") -> str:
        """The url of a prefix of the bucket."""
        return f"s3://{self.bucket}/{prefix}"

    def put(self, key: str, body: bytes) -> None:
        """Store an object under any key at all; client libraries refuse some."""
        self._request("PUT", f"/{self.bucket}/{quote(key)}", body)

    def fill(self, keys: Sequence[str]) -> None:
        """Store many objects of one byte, in a fraction of the time that a request for each would take."""
        self._tell({"bucket": self.bucket, "keys": list(keys)})

    def tag(self, key: str, **tags: str) -> None:
        """Give an object other tags."""
        found = "".join(f"<Tag><Key>{name}</Key><Value>{escape(value)}</Value></Tag>" for name, value in tags.items())
        body = f"<Tagging><TagSet>{found}</TagSet></Tagging>".encode()
        self._request("PUT", f"/{self.bucket}/{quote(key)}?tagging", body)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._request("DELETE", f"/{self.bucket}/{quote(key)}")

    def keys(self) -> list[str]:
        """The keys of the bucket, up to a thousand, as the server lists them."""
        listing = self._request("GET", f"/{self.bucket}?list-type=2").decode()
        return [unescape(key) for key in re.findall("<Key>(.*?)</Key>", listing, re.DOTALL)]

    def _request(self, method: str, path: str, body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {"Authorization": "AWS4-HMAC-SHA256 Credential=test/x/us-east-1/s3/aws4_request"}
            )
            response = connection.getresponse()
            said = response.read()
            assert response.status < 300, (response.status, said)
            return said
