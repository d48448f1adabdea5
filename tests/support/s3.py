"""An S3 server in a process of its own, so that tests which kill processes, and those processes, can share it."""

import contextlib
import http.client
import subprocess
import sys
from typing import Self
from urllib.parse import quote

# It ends with its standard input, so that it does not outlive a test run that was killed.
_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """moto on a free port of 127.0.0.1 with one empty bucket. Memory only: what is stored dies with it.

    Args:
        bucket: Name of the bucket.
    """

    def __init__(self, bucket: str = "documents") -> None:
        self.bucket = bucket
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
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

    @property
    def env(self) -> dict[str, str]:
        """What obstore, Lance and boto3 need to find the server."""
        return self.env_through(self.port)

    def env_through(self, port: int) -> dict[str, str]:
        """The same, for a proxy of 127.0.0.1 that stands in front of the server."""
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

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._request("DELETE", f"/{self.bucket}/{quote(key)}")

    def _request(self, method: str, path: str, body: bytes = b"") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {"Authorization": "AWS4-HMAC-SHA256 Credential=test/x/us-east-1/s3/aws4_request"}
            )
            response = connection.getresponse()
            said = response.read()
            assert response.status < 300, (response.status, said)
