"""Child processes that answer requests: they are started, limited, kept for the next request, replaced and killed.

A child answers one request at a time and is kept for the next one, because starting it costs more than most requests
do. It is replaced when it dies, when it exceeds a limit and after `MAX_REQUESTS_PER_CHILD` requests. If a used child
dies, its request is sent once more to a fresh one, so that no outcome depends on what the child did before.

The protocol: the parent writes requests to the child's standard input, each a line of JSON followed by data. The child
writes each answer to standard output: a line of JSON with the outcome in one or two words, a detail and the size of the
data, followed by the data. The first answer has the outcome ``ready``, and its detail names the rights that the child
could not drop.
"""

import atexit
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.sandbox.confinement import unavailable
from ingest_pipeline.sandbox.folders import ChildFolders
from ingest_pipeline.telemetry.logs import get_logger

MAX_REQUESTS_PER_CHILD: Final = 100
MAX_IDLE_CHILDREN: Final = 4
"""Idle children that are kept for one program."""
START_SECONDS: Final = 60.0

_START_OUTCOMES: Final = frozenset({"ready", "refused"})
_MAX_LAST_WORDS_BYTES: Final = 2_000
_OUT_OF_MEMORY: Final = ("memory allocation of", "MemoryError", "bad_alloc", "out of memory", "Cannot allocate memory")
_MAX_HEAD_BYTES: Final = 64 << 10

_folders: Final = ChildFolders()
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs. A child is kept for requests to an equal program."""

    name: str
    """For messages, such as `document parser`."""
    script: Path
    outcomes: frozenset[str]
    """The outcomes that it may answer with. Any other answer is treated as a crash."""
    memory_bytes: int
    """Address space of the child."""
    introduction: bytes = b""
    """Written to its standard input before the first request."""
    is_trusted: bool = False
    """Whether it gets the environment of this process, secrets included."""
    is_replaced: bool = True
    """Whether a child is replaced after `MAX_REQUESTS_PER_CHILD` requests. It may hold a model that is slow to load."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one request."""

    cpu_seconds: int
    wall_seconds: float
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a child."""

    outcome: str
    detail: str
    data: bytes = b""


class DeadChildError(Exception):
    """A child ended without an answer, or its answer was invalid."""

    def __init__(self, returncode: int, last_words: str, *, expired: bool) -> None:
        super().__init__(returncode, last_words)
        self.returncode = returncode
        self.last_words = last_words
        self.expired = expired

    @property
    def out_of_cpu(self) -> bool:
        """Whether it exceeded its limit on CPU."""
        return self.returncode == -signal.SIGXCPU

    @property
    def out_of_memory(self) -> bool:
        """Whether it exceeded its limit on memory, or the machine had none left."""
        # Rust aborts on a refused allocation and reports it. The kernel's out-of-memory killer sends SIGKILL.
        return self.returncode == -signal.SIGKILL or any(sign in self.last_words for sign in _OUT_OF_MEMORY)

    @property
    def how(self) -> str:
        """How it ended."""
        if self.returncode < 0:
            return signal.Signals(-self.returncode).name
        return f"exit status {self.returncode}"


class ChildPool:
    """Lends each thread a child process of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._warned: set[str] = set()
        atexit.register(self.close)
        # A forked process must not write into the pipes of its parent's children.
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, program: Program, head: Mapping[str, object], data: bytes, limits: RequestLimits) -> Answer:
        """Let a child answer a request. Threads may call this concurrently.

        Args:
            program: What the child runs.
            head: Values of the line of JSON. The size of the data is added.
            data: The data that follows the line.
            limits: The limits of the request.

        Raises:
            ConfigurationError: The child does not start.
            DeadChildError: It died, was killed after its time limit, or violated the protocol.
        """
        fresh = False
        while True:
            child = self._start(program) if fresh else self._borrow(program)
            fresh = child.served == 0
            try:
                answer = child.ask(head, data, limits)
            except DeadChildError as death:
                # These limits are counted for each request, so earlier requests of the child are not the cause.
                if fresh or death.expired or death.out_of_cpu:
                    raise
                fresh = True
                continue
            self._give_back(child)
            return answer

    def close(self) -> None:
        """End the idle children."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.stop()

    def _borrow(self, program: Program) -> "_Child":
        with self._lock:
            for child in reversed(self._idle):
                if child.program == program:
                    self._idle.remove(child)
                    return child
        return self._start(program)

    def _start(self, program: Program) -> "_Child":
        child = _Child(program)
        if child.kept and program.name not in self._warned:
            self._warned.add(program.name)
            log.warning(
                "The %s could not drop its rights to %s, which a hostile document may use: this kernel or "
                "container lacks %s",
                program.name,
                child.kept,
                ", ".join(unavailable()) or "namespaces",
            )
        return child

    def _give_back(self, child: "_Child") -> None:
        with self._lock:
            alike = sum(other.program == child.program for other in self._idle)
            is_fresh = child.served < MAX_REQUESTS_PER_CHILD or not child.program.is_replaced
            keep = is_fresh and alike < MAX_IDLE_CHILDREN
            if keep:
                self._idle.append(child)
        if not keep:
            child.stop()

    def _forget(self) -> None:
        for child in self._idle:
            child.disown()
        self._lock = threading.Lock()
        self._idle = []


class _Child:
    """One child process with a fixed memory limit. It has ended after any exception from `ask`."""

    def __init__(self, program: Program) -> None:
        self.served = 0
        self.program = program
        self._expired = False
        # A folder of its own, so that documents of different children cannot affect each other.
        self._folder = None if program.is_trusted else _folders.make()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child; `stop` closes it
        # A session of its own: an interrupt from the terminal must not look like a document that kills its parser.
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own script, by our own interpreter
                [sys.executable, "-P", str(program.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_whole_environment() if self._folder is None else _environment(self._folder),
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            self._remove_folder()
            raise ConfigurationError(f"The {program.name} does not start: {error}") from error
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        try:
            ready = self._within(START_SECONDS, self._introduce)
        except DeadChildError as death:
            raise ConfigurationError(f"The {program.name} does not start ({death.how}): {death.last_words}") from None
        if ready.outcome != "ready":
            self.stop()
            raise ConfigurationError(ready.detail)
        self.kept = ready.detail

    def ask(self, head: Mapping[str, object], data: bytes, limits: RequestLimits) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            DeadChildError: The child died, was killed after its time limit, or violated the protocol.
        """
        self.served += 1
        line = {**head, "size": len(data), "output_bytes": limits.output_bytes}

        def exchange() -> Answer:
            self._limit(limits.cpu_seconds)
            self._requests.write(json.dumps(line).encode() + b"\n")
            self._requests.write(data)
            self._requests.flush()
            return self._receive(limits.output_bytes)

        return self._within(limits.wall_seconds, exchange)

    def _introduce(self) -> Answer:
        self._requests.write(self.program.introduction)
        self._requests.flush()
        return self._receive(0)

    def _limit(self, cpu_seconds: int) -> None:
        """Set the child's limits from outside, because it may not change them."""
        pid = self._process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        memory = _lower(self.program.memory_bytes, hard)
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
        # The hard limit stays, because it could not be raised again for the next document.
        resource.prlimit(pid, resource.RLIMIT_CPU, (_lower(math.ceil(_cpu_seconds(pid)) + cpu_seconds, hard), hard))

    def stop(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._remove_folder()
        for pipe in (self._requests, self._answers, self._stderr):
            # Closing flushes data that the dead child did not receive, which fails.
            with suppress(OSError):
                pipe.close()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def disown(self) -> None:
        """Close a forked process's copies of the pipes, and leave the child to the process that started it."""
        for pipe in (self._requests, self._answers, self._stderr):
            pipe.close()
        self._process.returncode = 0

    def _within(self, seconds: float, work: Callable[[], Answer]) -> Answer:
        """Run work that talks to the child. If it takes longer, kill the child, which ends the work too."""
        timer = threading.Timer(seconds, self._expire)
        timer.daemon = True
        timer.start()
        alive = False
        try:
            answer = work()
            timer.cancel()
            timer.join()
            if self._expired:
                raise self._death()
            alive = True
        except (OSError, ValueError, KeyError, TypeError):
            raise self._death() from None
        else:
            return answer
        finally:
            timer.cancel()
            if not alive:
                self.stop()

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _receive(self, output_bytes: int) -> Answer:
        """Read one answer. An invalid one raises OSError, ValueError, KeyError or TypeError."""
        answer = json.loads(self._answers.readline(_MAX_HEAD_BYTES))
        outcome, detail, size = str(answer["outcome"]), str(answer["detail"]), int(answer["size"])
        if outcome not in self.program.outcomes | _START_OUTCOMES or not 0 <= size <= output_bytes:
            raise ValueError(answer)
        data = self._answers.read(size)
        if len(data) < size:
            raise ValueError(size)
        return Answer(outcome, detail, data)

    def _death(self) -> DeadChildError:
        # The pipe closes a moment before the process has its exit status.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._process.kill()
        size = os.fstat(self._stderr.fileno()).st_size
        words = os.pread(self._stderr.fileno(), _MAX_LAST_WORDS_BYTES, max(0, size - _MAX_LAST_WORDS_BYTES))
        return DeadChildError(self._process.wait(), words.decode(errors="replace"), expired=self._expired)


def _whole_environment() -> dict[str, str]:
    """The environment of this process without its failpoints, which are meant for this process alone."""
    return {name: value for name, value in os.environ.items() if name != "INGEST_FAILPOINTS"} | _interpreter()


def _interpreter() -> dict[str, str]:
    """Lets the child's interpreter find the modules that this one finds."""
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path)
    return {"PYTHONPATH": paths, "PYTHONUTF8": "1"}


def _environment(directory: str) -> dict[str, str]:
    """The child's environment: the paths where this interpreter finds modules, and no secret of this process."""
    found = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return found | {
        "HOME": directory,
        "TMPDIR": directory,
        **_interpreter(),
        # Every thread and every malloc arena reserves address space, and the limit allows 2 GB in total.
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
    }


def _lower(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
