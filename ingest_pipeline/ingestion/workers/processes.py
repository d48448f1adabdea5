"""The worker processes of a run, and the thread that hands out parts to them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from queue import SimpleQueue
from time import monotonic

from ingest_pipeline.ingestion.workers.messages import Assignment, Part, PartDone, PartFailed, Peers, Ready, Served
from ingest_pipeline.processes import with_parent_death_signal

# After an interrupt, a worker waits up to 10 seconds for answers that are billed in any case.
_END_SECONDS = 20.0


@dataclass(slots=True)
class Worker:
    """One worker process, as the run sees it."""

    process: subprocess.Popen[bytes]
    connection: Connection
    writer: str = ""
    """Its identity in the ledger. Empty: it has not opened the corpus yet."""
    part: Part | None = None
    """What it works on."""
    is_dead: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether it can get a part."""
        return bool(self.writer) and self.part is None and not self.is_dead


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker sent, or that it died."""

    worker: Worker
    message: object
    """None: the process has ended."""
    part: Part | None = None
    """The part that the message ends."""


@dataclass(slots=True)
class WorkerProcesses:
    """Some workers. A thread hands out parts, so that no worker waits while the run compares or reports.

    The first worker alone gets a part until the endpoint has served the model, so that a wrong model costs one text.

    Args:
        assignment: What the workers work for.
        count: How many workers to start.
    """

    assignment: Assignment
    count: int
    events: SimpleQueue[Event] = field(default_factory=SimpleQueue[Event])
    """What the workers sent. The run takes the events."""
    workers: list[Worker] = field(default_factory=list[Worker])
    _waiting: deque[Part] = field(default_factory=deque[Part])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_served: bool = False
    _ended: bool = False
    _thread: threading.Thread | None = None
    _alarm: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def start(self) -> None:
        """Start the processes. They end with this one, for whatever reason it ends."""
        for _ in range(self.count):
            self.workers.append(_start(self.assignment))
        self._thread = threading.Thread(target=self._hand_out_parts, name="parts of the workers", daemon=True)
        self._thread.start()

    def add(self, parts: Sequence[Part], *, first: bool = False) -> None:
        """Let workers get these parts.

        Args:
            parts: The parts.
            first: Before all other parts.
        """
        with self._lock:
            if first:
                self._waiting.extendleft(reversed(parts))
            else:
                self._waiting.extend(parts)
        self._wake()

    def drop_waiting(self) -> int:
        """Hand out no more parts; returns how many were left."""
        with self._lock:
            count = len(self._waiting)
            self._waiting.clear()
        return count

    @property
    def waiting(self) -> int:
        """Parts that no worker has."""
        return len(self._waiting)

    @property
    def living(self) -> int:
        """Workers that have not ended."""
        return sum(not worker.is_dead for worker in self.workers)

    def close(self) -> None:
        """End the workers. One that is at work records the answers of its requests first."""
        self._ended = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        for worker in self.workers:
            worker.connection.close()
        ends = monotonic() + _END_SECONDS
        for worker in self.workers:
            if not worker.writer:
                worker.process.kill()  # it has begun nothing
            try:
                worker.process.wait(max(0.1, ends - monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        for end in self._alarm:
            end.close()

    def _wake(self) -> None:
        self._alarm[1].send(b"w")

    def _hand_out_parts(self) -> None:
        alarm = self._alarm[0]
        while not self._ended:
            living = {worker.connection: worker for worker in self.workers if not worker.is_dead}
            for found in wait([alarm, *living]):
                if found is alarm:
                    alarm.recv(1024)
                elif isinstance(found, Connection):
                    self._receive(living[found])
            self._hand_out()

    def _receive(self, worker: Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.is_dead = True
            part, worker.part = worker.part, None
            worker.process.wait()
            self.events.put(Event(worker, None, part))
            return
        part = None
        if isinstance(message, Ready):
            self._is_served = self._is_served or message.is_served
            worker.writer = message.writer
            self._introduce()
        elif isinstance(message, Served):
            self._is_served = True
        elif isinstance(message, PartDone | PartFailed):
            self._is_served = self._is_served or isinstance(message, PartDone)
            part, worker.part = worker.part, None
        self.events.put(Event(worker, message, part))

    def _introduce(self) -> None:
        """Send each worker the identities of all, before the newest one gets a part."""
        peers = Peers([worker.writer for worker in self.workers if worker.writer])
        for worker in self.workers:
            if worker.writer:
                _send(worker, peers)

    def _hand_out(self) -> None:
        for worker in self.workers:
            is_any_busy = any(other.part is not None for other in self.workers)
            if not worker.is_idle or (is_any_busy and not self._is_served):
                continue
            with self._lock:
                if not self._waiting:
                    return
                worker.part = self._waiting.popleft()
            _send(worker, worker.part)


def _send(worker: Worker, message: object) -> None:
    try:
        worker.connection.send(message)
    except OSError:
        return  # it died, and its connection says so next


def _start(assignment: Assignment) -> Worker:
    ours, theirs = Pipe()
    try:
        arguments = [sys.executable, "-P", "-m", "ingest_pipeline.ingestion.workers.worker", str(theirs.fileno())]
        # A session of its own: Ctrl-C reaches the run alone, which then ends its workers.
        process = subprocess.Popen(  # noqa: S603  our own program, by our own interpreter
            with_parent_death_signal(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    finally:
        theirs.close()
    worker = Worker(process, ours)
    _send(worker, assignment)
    return worker


def how_it_ended(worker: Worker) -> str:
    """How a worker that is dead ended, such as `SIGKILL`."""
    code = worker.process.returncode
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
