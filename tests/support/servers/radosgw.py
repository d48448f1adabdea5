"""A real S3 server: Ceph's gateway over a cluster of one monitor and one storage daemon that keeps all in memory.

Debian's packages `radosgw`, `ceph-mon`, `ceph-osd` and `ceph-common` have its programs. It starts in about ten seconds.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self, cast

import boto3

from tests.support.servers.ports import free_port

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_READY_SECONDS = 120.0
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
run dir = {folder}
crash dir = {folder}
mon data = {folder}/mon
mon allow pool size one = true
mon max pg per osd = 1000
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gateway}
"""


def missing_programs() -> list[str]:
    """Those of its programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class RadosGateway:
    """The server with one empty bucket. It has the methods of `S3Server` that fail no request.

    Args:
        folder: An empty folder for its files, with a short path: some of them are sockets.
        bucket: Name of the bucket.
    """

    def __init__(self, folder: Path, bucket: str = "documents") -> None:
        self.bucket = bucket
        self._folder = folder
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def _start(self) -> None:
        folder, identity, monitor = self._folder, str(uuid.uuid4()), free_port()
        for name in ("mon", "osd"):
            (folder / name).mkdir()
        (folder / "ceph.conf").write_text(
            _CONFIGURATION.format(fsid=identity, folder=folder, monitor=monitor, gateway=self._port)
        )
        address = f"[v1:127.0.0.1:{monitor}]"
        self._run("monmaptool", "--create", "--fsid", identity, "--addv", "a", address, f"{folder}/monmap")
        self._run("ceph-authtool", "--create-keyring", f"{folder}/keyring", "--gen-key", "-n", "mon.")
        for client in ("client.admin", "client.rgw"):
            self._run("ceph-authtool", f"{folder}/keyring", "--gen-key", "-n", client)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap", "--keyring", f"{folder}/keyring")
        self._spawn("ceph-mon", "-i", "a")
        number = self._run("ceph", "osd", "create").strip()
        self._run("ceph", "osd", "crush", "add", f"osd.{number}", "1.0", "host=localhost", "root=default")
        self._run("ceph-osd", "-i", number, "--mkfs")
        self._spawn("ceph-osd", "-i", number)
        self._spawn("radosgw", "-n", "client.rgw")
        self._wait()
        self._run(
            "radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
            f"--access-key={self.env['AWS_ACCESS_KEY_ID']}", f"--secret-key={self.env['AWS_SECRET_ACCESS_KEY']}",
        )  # fmt: skip
        self._client.create_bucket(Bucket=self.bucket)

    def _wait(self) -> None:
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            with suppress(OSError), closing(connection):
                connection.request("GET", "/")
                if connection.getresponse().status == http.client.OK:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"the gateway does not answer; see the logs in {self._folder}")

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "CEPH_CONF": f"{self._folder}/ceph.conf"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_READY_SECONDS, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def _spawn(self, *command: str) -> None:
        environment = {**os.environ, "CEPH_CONF": f"{self._folder}/ceph.conf"}
        self._processes.append(
            subprocess.Popen([*command, "-f"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    @property
    def env(self) -> dict[str, str]:
        """Environment variables by which obstore, Lance and boto3 find the server."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def _client(self) -> Any:
        return cast("Any", boto3).client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_REGION"],
        )

    def url(self, prefix: str = "") -> str:
        """The url of a prefix of the bucket."""
        return f"s3://{self.bucket}/{prefix}"

    def put(self, key: str, body: bytes) -> None:
        """Store an object."""
        self._client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._client.delete_object(Bucket=self.bucket, Key=key)
