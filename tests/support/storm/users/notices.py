"""Notices in a storm: a queue whose messages get lost, doubled, late and out of order, and those who listen."""

from __future__ import annotations

import heapq
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tests.support.servers.notices import NoticeQueue
from tests.support.storm.stage import Stage
from tests.support.storm.users.writers import CLI_SECONDS, Victims, failpoint_of

_LOST, _DOUBLED = 0.15, 0.2
_LATE_SECONDS = 8.0
_PAUSE = 0.3
_LISTENING_SECONDS = 150.0
_PATIENCE = 50


class Postman:
    """Carries the messages of the bucket's queue to the queue that the product reads.

    Args:
        stage: The stage of the storm, whose source is in S3.
    """

    def __init__(self, stage: Stage) -> None:
        assert stage.s3 is not None
        self._stage, self._random = stage, stage.random("postman")
        self._raw = NoticeQueue(stage.s3, "source/")
        self._name = f"{self._raw.name}-carried"
        self._url: str = self._raw.client.create_queue(QueueName=self._name)["QueueUrl"]
        self._bag: list[tuple[float, int, str]] = []
        self._number = 0

    @property
    def address(self) -> str:
        """The setting `events`."""
        return f"sqs://{self._name}"

    def run(self) -> None:
        """Carry messages until the storm is over; then deliver all that are late."""
        while not self._stage.calm.wait(_PAUSE):
            self._collect()
            self._deliver(time.monotonic())
        self._collect()
        self._deliver(float("inf"))

    def _collect(self) -> None:
        for body in self._insist(self._raw.bodies, []):
            for _ in range(fate_of_a_message(self._random)):
                self._number += 1
                due = time.monotonic() + self._random.uniform(0, _LATE_SECONDS)
                heapq.heappush(self._bag, (due, self._number, body))
            self._stage.figures.count("notices: of the bucket")

    def _deliver(self, until: float) -> None:
        while self._bag and self._bag[0][0] <= until:
            _, _, body = heapq.heappop(self._bag)
            self._insist(partial(self._raw.client.send_message, QueueUrl=self._url, MessageBody=body), None)
            self._stage.figures.count("notices: delivered")

    def _insist(self, call: Callable[[], Any], otherwise: Any) -> Any:
        """Call until it succeeds: the server fails a share of all requests."""
        for _ in range(_PATIENCE):
            try:
                return call()
            except Exception:  # noqa: BLE001  botocore makes its classes at run time
                time.sleep(0.1)
        self._stage.figures.note("the queue refuses everything")
        return otherwise


def fate_of_a_message(random: Random) -> int:
    """How often a message is delivered."""
    return random.choices([0, 1, 2], [_LOST, 1 - _LOST - _DOUBLED, _DOUBLED])[0]


def listen_again_and_again(stage: Stage, victims: Victims) -> None:
    """Run `ingest-pipeline listen`, which dies at times, until the storm is over."""
    random = stage.random("listener")
    while not stage.calm.wait(random.uniform(0, 2)):
        with tempfile.TemporaryFile("w+", dir=stage.directory) as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ingest_pipeline.cli.main", "listen"],
                env=stage.environment("writers", gated=random.random() < 0.5, events=True)
                | {"INGEST_FAILPOINTS": failpoint_of(random)},
                cwd=stage.directory,
                stdout=output,
                stderr=output,
            )
            stage.reaper.spare(process.pid)
            with victims.offer("listener", process.pid):
                ends = time.monotonic() + random.uniform(_LISTENING_SECONDS / 3, _LISTENING_SECONDS)
                while process.poll() is None and time.monotonic() < ends and not stage.calm.wait(0.2):
                    pass
                _end(stage, process)
            output.seek(0)
            _report(stage, process.returncode, output.read())


def _end(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    """Stop a listener as a user does."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(CLI_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        stage.figures.violation(f"`listen` did not end within {CLI_SECONDS:g} s after SIGTERM")


def _report(stage: Stage, status: int, said: str) -> None:
    stage.figures.count(f"listener: exit {status}")
    stage.figures.count("listener: publications", said.count(" published, "))
    if status != 0:
        stage.disruptions.moment()
    if "Traceback" in said:
        stage.figures.count("listener: ended in a traceback")
        stage.figures.note(f"`listen` exit {status} with a traceback: {said[-250:]}")
    elif status > 0:
        stage.figures.violation(f"`listen` ended with {status}: {said[-300:]}")
