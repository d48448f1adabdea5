"""Dagster's runs on two workers that could be two machines: each has a host name and a process group of its own.

They share Postgres, S3 and the engine that distributes runs. Celery needs `redis-server` and the packages
dagster-celery and redis, which only this module uses.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.support.servers.ports import free_port
from tests.support.storm.processes import adopt_orphans, kill_below, send

WORKERS = ("worker-one", "worker-two")
_TOOLS = Path(sys.executable).parent
_UP_SECONDS = 240


def _wait_for(port: int) -> None:
    end = time.monotonic() + _UP_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < end, f"nothing listens on port {port}"
        time.sleep(0.2)


class Cluster:
    """The processes of an engine. A worker's processes see the worker's name as their host name.

    Args:
        directory: Folder of their logs and files.
        environment: Environment of the workers.
    """

    launcher: str
    """The part of `dagster.yaml` about the engine."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        adopt_orphans()
        self.directory = directory
        self.environment = dict(environment) | {"PATH": f"{_TOOLS}:/usr/bin:/bin"}
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []

    def start(self, name: str, command: Sequence[str]) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        self._logs.append(log)
        if name in WORKERS:
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *command]
        self._started[name] = subprocess.Popen(
            command, env=self.environment, cwd=self.directory, stdout=log, stderr=subprocess.STDOUT
        )

    def kill(self, name: str) -> None:
        """SIGKILL all processes of a worker, as when its machine loses power."""
        process = self._started[name]
        send(process.pid, signal.SIGSTOP)  # otherwise it would replace its killed children
        kill_below(process.pid)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for name in reversed(self._started):
            with suppress(ProcessLookupError):
                self.kill(name)
        for log in self._logs:
            log.close()


class Celery(Cluster):
    """Two workers that take one run at a time from a queue in Redis."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        super().__init__(directory, environment)
        self._port = free_port()
        url = f"redis://127.0.0.1:{self._port}"
        places = {"broker": f"{url}/0", "backend": f"{url}/1"}
        self._configuration = directory / "celery.yaml"
        lines = "".join(f"    {name}: {place}\n" for name, place in places.items())
        self._configuration.write_text(f"execution:\n  config:\n{lines}")
        self.launcher = (
            f"run_launcher:\n  module: dagster_celery.launcher\n  class: CeleryRunLauncher\n  config:\n{lines}"
        )

    def up(self) -> None:
        self.start("redis", ["redis-server", "--port", str(self._port), "--save", "", "--bind", "127.0.0.1"])
        _wait_for(self._port)
        for name in WORKERS:
            arguments = ["-A", "dagster_celery.app", "-y", str(self._configuration), "-n", name, "--", "-c", "1"]
            self.start(name, [str(_TOOLS / "dagster-celery"), "worker", "start", *arguments])
