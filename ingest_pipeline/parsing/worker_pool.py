"""Runs child processes that parse documents: the parent's side of ``worker``.

A child parses one document at a time and is kept for the next one, because starting it costs more than most documents
do. It is replaced when it dies, when it exceeds a limit and after `FILES_PER_CHILD` documents. If a used child dies,
its document is parsed once more in a fresh one, so that no outcome depends on what the child parsed before.
"""

import atexit
import json
import logging
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, cast

from ingest_pipeline.errors import (
    ConfigurationError,
    CorruptDocumentError,
    DocumentError,
    DocumentTooLargeError,
    EncryptedDocumentError,
    MissingExtraError,
    UnsupportedFormatError,
)
from ingest_pipeline.parsing.confinement import unavailable

FILES_PER_CHILD: Final = 100
IDLE_CHILDREN: Final = 4
START_SECONDS: Final = 60.0

_SCRIPT: Final = Path(__file__).with_name("worker.py")
_LAST_WORDS: Final = 2_000
_OUT_OF_MEMORY: Final = ("memory allocation of", "MemoryError", "bad_alloc", "out of memory", "Cannot allocate memory")
_GREATEST_HEAD: Final = 64 << 10
_ERRORS: Final[dict[str, type[DocumentError]]] = {
    "corrupt": CorruptDocumentError,
    "too large": DocumentTooLargeError,
    "unsupported": UnsupportedFormatError,
}
_OUTCOMES: Final = {"ready", "text", "encrypted", *_ERRORS}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """What parsing one document may cost. Text formats are streamed and have no limits."""

    input_bytes: int = 100_000_000
    unpacked_bytes: int = 250_000_000
    """Of the members of an Office or EPUB file, which are ZIP archives, together."""
    output_bytes: int = 100_000_000
    memory_bytes: int = 2 << 30
    """Address space of the child: its libraries and thread stacks take 0.5 GB before it reads a document."""
    cpu_seconds: int = 60
    wall_seconds: float = 120.0


class _DeadChildError(Exception):
    """A child ended without an answer, or its answer was invalid."""

    def __init__(self, returncode: int, last_words: str, *, expired: bool) -> None:
        super().__init__(returncode, last_words)
        self.returncode = returncode
        self.last_words = last_words
        self.expired = expired

    @property
    def out_of_bounds(self) -> bool:
        """Whether the document alone exceeded a limit that is counted for each document."""
        return self.expired or self.returncode == -signal.SIGXCPU

    def blame(self, document: str, limits: ParserLimits) -> DocumentError:
        """The error of the document that the child was parsing when it died."""
        if self.expired:
            return DocumentTooLargeError(document, f"took more than {limits.wall_seconds:g} seconds to parse")
        if self.returncode == -signal.SIGXCPU:
            return DocumentTooLargeError(document, f"took more than {limits.cpu_seconds} seconds of CPU to parse")
        # Rust aborts on a refused allocation and reports it. The kernel's out-of-memory killer sends SIGKILL.
        if self.returncode == -signal.SIGKILL or any(sign in self.last_words for sign in _OUT_OF_MEMORY):
            return DocumentTooLargeError(document, f"needs more than {limits.memory_bytes} bytes of memory to parse")
        return CorruptDocumentError(document, f"crashed the parser ({_how(self.returncode)})")


class ParserPool:
    """Lends each thread a child process of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._warned = False
        atexit.register(self.close)
        # A forked process must not write into the pipes of its parent's children.
        os.register_at_fork(after_in_child=self._forget)

    def extract(self, document: str, media_type: str, data: bytes, limits: ParserLimits) -> str:
        """Parse a document in a child. Threads may call this concurrently.

        Args:
            document: Key of the document, for the messages.
            media_type: A format that kreuzberg reads.
            data: The whole document.
            limits: What it may cost.

        Returns:
            The text as Markdown, empty if the document has none.

        Raises:
            MissingExtraError: kreuzberg is not installed.
            ConfigurationError: The child does not start.
            CorruptDocumentError: The document is damaged, or the child crashed over it.
            DocumentTooLargeError: It exceeded a limit.
            EncryptedDocumentError: It needs a password.
            UnsupportedFormatError: kreuzberg does not support its format.
        """
        fresh = False
        while True:
            child = self._start(limits) if fresh else self._borrow(limits)
            fresh = child.served == 0
            try:
                outcome, text = child.ask(media_type, data, limits)
            except _DeadChildError as death:
                if fresh or death.out_of_bounds:
                    raise death.blame(document, limits) from None
                fresh = True
                continue
            self._give_back(child)
            if outcome == "encrypted":
                raise EncryptedDocumentError(document, text, "Save it without a password.")
            if outcome != "text":
                raise _ERRORS[outcome](document, text)
            return text

    def close(self) -> None:
        """End the idle children."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.stop()

    def _borrow(self, limits: ParserLimits) -> "_Child":
        with self._lock:
            for child in reversed(self._idle):
                if child.memory_bytes == limits.memory_bytes:
                    self._idle.remove(child)
                    return child
        return self._start(limits)

    def _start(self, limits: ParserLimits) -> "_Child":
        child = _Child(limits.memory_bytes)
        if child.kept and not self._warned:
            self._warned = True
            log.warning(
                "The document parser could not drop its rights to %s, which a hostile document may use: this kernel or "
                "container lacks %s",
                child.kept,
                ", ".join(unavailable()) or "namespaces",
            )
        return child

    def _give_back(self, child: "_Child") -> None:
        with self._lock:
            keep = child.served < FILES_PER_CHILD and len(self._idle) < IDLE_CHILDREN
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
    """One child process with a fixed memory limit. After any exception from `ask` it is gone."""

    def __init__(self, memory_bytes: int) -> None:
        if find_spec("kreuzberg") is None:
            raise MissingExtraError(
                "PDF, Office, HTML and EPUB documents need the parser kreuzberg, which is not installed",
                "Run: pip install 'ingest-pipeline[documents]'",
            )
        self.served = 0
        self.memory_bytes = memory_bytes
        self._expired = False
        # A folder of its own, so that documents of different children cannot affect each other.
        self._folder = tempfile.mkdtemp(prefix="ingest-pipeline-parser-")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child; `stop` closes it
        # A session of its own: an interrupt from the terminal must not look like a document that kills its parser.
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own script, by our own interpreter
                [sys.executable, "-P", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(self._folder),
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ConfigurationError(f"The document parser does not start: {error}") from error
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        try:
            _, self.kept = self._within(START_SECONDS, lambda: self._receive(0))
        except _DeadChildError as death:
            raise ConfigurationError(
                f"The document parser does not start ({_how(death.returncode)}): {death.last_words}"
            ) from None

    def ask(self, media_type: str, data: bytes, limits: ParserLimits) -> tuple[str, str]:
        """The outcome, and the text or the problem.

        Raises:
            _DeadChildError: The child died, was killed after its time limit, or violated the protocol.
        """
        self.served += 1
        head = {
            "media_type": media_type,
            "size": len(data),
            "unpacked_bytes": limits.unpacked_bytes,
            "output_bytes": limits.output_bytes,
        }

        def exchange() -> tuple[str, str]:
            self._limit(limits.cpu_seconds)
            self._requests.write(json.dumps(head).encode() + b"\n")
            self._requests.write(data)
            self._requests.flush()
            return self._receive(limits.output_bytes)

        return self._within(limits.wall_seconds, exchange)

    def _limit(self, cpu_seconds: int) -> None:
        """Set the child's limits from outside, because it may not change them."""
        pid = self._process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        memory = _lower(self.memory_bytes, hard)
        resource.prlimit(pid, resource.RLIMIT_AS, (memory, memory))
        _, hard = resource.prlimit(pid, resource.RLIMIT_CPU)
        # The hard limit stays, because it could not be raised again for the next document.
        resource.prlimit(pid, resource.RLIMIT_CPU, (_lower(math.ceil(_cpu_seconds(pid)) + cpu_seconds, hard), hard))

    def stop(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        for pipe in (self._requests, self._answers, self._stderr):
            # Data that a dead child did not receive is useless.
            with suppress(OSError):
                pipe.close()

    def disown(self) -> None:
        """Close a forked process's copies of the pipes, and leave the child to the process that started it."""
        for pipe in (self._requests, self._answers, self._stderr):
            pipe.close()
        self._process.returncode = 0

    def _within(self, seconds: float, work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
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

    def _receive(self, output_bytes: int) -> tuple[str, str]:
        """Read one answer. An invalid one raises OSError, ValueError, KeyError or TypeError."""
        answer = json.loads(self._answers.readline(_GREATEST_HEAD))
        outcome, detail, size = str(answer["outcome"]), str(answer["detail"]), int(answer["size"])
        if outcome not in _OUTCOMES or size > output_bytes:
            raise ValueError(answer)
        text = self._answers.read(size)
        if len(text) < size:
            raise ValueError(size)
        return outcome, text.decode() if outcome == "text" else detail

    def _death(self) -> _DeadChildError:
        # The pipe closes a moment before the process has its exit status.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._process.kill()
        size = os.fstat(self._stderr.fileno()).st_size
        words = os.pread(self._stderr.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS))
        return _DeadChildError(self._process.wait(), words.decode(errors="replace"), expired=self._expired)


def _environment(directory: str) -> dict[str, str]:
    """The child's environment: the paths where this interpreter finds modules, and no secret of this process."""
    found = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return found | {
        "HOME": directory,
        "TMPDIR": directory,
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path if path),
        "PYTHONUTF8": "1",
        # Every thread and every malloc arena reserves address space, and the limit allows 2 GB in total.
        "MALLOC_ARENA_MAX": "2",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
    }


def _lower(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _how(returncode: int) -> str:
    if returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit status {returncode}"
