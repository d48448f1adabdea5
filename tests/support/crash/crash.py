"""Child processes that run one job on a corpus, and are killed or stopped at a boundary of the engine.

They are forked from a server that has imported everything and has never called Lance, which is not fork-safe after
its first use. So a child takes a tenth of a second to start instead of seven seconds.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from ingest_pipeline import failpoints
from ingest_pipeline.errors import IngestError
from ingest_pipeline.failpoints import Boundary
from tests.support.dagster.preloaded import of_the_run
from tools import figures

# pytest imports the tests without their root on the path, but the server needs the root there.
_ROOT = Path(__file__).parents[3]
_WAIT_SECONDS = 300.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["__main__", "tests.support.crash.preloaded"])


@dataclass(frozen=True, slots=True)
class Place:
    """One passage of one side of a boundary."""

    boundary: Boundary
    side: str
    occurrence: int = 1

    def __str__(self) -> str:
        return f"{self.side} {self.boundary} {self.occurrence}".replace(" ", "_")

    def failpoint(self, action: str) -> str:
        """The place as a value of INGEST_FAILPOINTS."""
        return f"{self.boundary}:{self.side}={action}@{self.occurrence}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended."""

    killed: bool = False
    result: Any = None
    error: str | None = None
    """Name of the class of the error that the child raised."""
    ours: bool = True
    """The child raised no error, or an error of the package."""
    message: str = ""


def forked(work: Callable[..., None], *arguments: object, daemon: bool = False) -> ForkServerProcess:
    """Start a process that calls a function, and that has imported the package already."""
    process = _context.Process(target=work, args=arguments, daemon=daemon)
    with _environment_of_server():
        process.start()
    return process


class Child:
    """A process that runs one job.

    Args:
        job: A function of `tests.support.crash.jobs`.
        arguments: Arguments of the job.
        kill_at: The place at which the process is killed.
        stop_at: The place at which the process stops until `resume`.
    """

    def __init__(
        self, job: Callable[..., Any], *arguments: object, kill_at: Place | None = None, stop_at: Place | None = None
    ) -> None:
        wanted = [place.failpoint("kill") for place in (kill_at,) if place]
        wanted += [place.failpoint("stop") for place in (stop_at,) if place]
        self._kill_at = kill_at
        self._end, there = _context.Pipe(duplex=False)
        environment = {**os.environ, "INGEST_FAILPOINTS": ";".join(wanted)}
        self._process = forked(_work, there, environment, job, arguments, daemon=True)
        there.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def outcome(self) -> Outcome:
        """Wait until the child ends; returns how it ended."""
        outcome = Outcome(killed=True)
        with suppress(EOFError):
            assert self._end.poll(_WAIT_SECONDS), "the child does not end"
            outcome = self._end.recv()
        self._process.join(_WAIT_SECONDS)
        assert self._process.exitcode == (-signal.SIGKILL if outcome.killed else 0)
        self._end.close()
        self._process.close()
        figures.count("processes killed (SIGKILL)", outcome.killed)
        if outcome.killed and self._kill_at is not None:
            figures.killed_at(f"{self._kill_at.side} {self._kill_at.boundary}")
        return outcome

    def runs(self) -> bool:
        """Whether the child has neither ended nor sent its outcome."""
        return not self._end.poll()

    def wait_until_stopped(self) -> bool:
        """Wait until the child stops at its place. False: it ended without reaching the place."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            if self._end.poll(0.005):
                return False
            if _state(self.pid) == "T":
                return True
        raise AssertionError("the child neither stops nor ends")

    def print_stacks(self) -> None:
        """Let the child print the stack of each of its threads to the standard error."""
        os.kill(self.pid, signal.SIGUSR1)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _work(end: Connection, environment: dict[str, str], job: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    faulthandler.register(signal.SIGUSR1)  # so that a child that does not end can print its stacks
    # The server that forked this process may have been started by an earlier test, with variables of that test.
    os.environ.clear()
    os.environ.update(environment)
    failpoints.install_from_environment()
    try:
        outcome = Outcome(result=job(*arguments))
    except IngestError as error:
        outcome = Outcome(error=type(error).__name__, message=str(error))
    except Exception as error:  # noqa: BLE001  the test has to receive every error
        outcome = Outcome(error=type(error).__name__, ours=False, message=repr(error))
    end.send(outcome)
    end.close()
    # Do not wait for threads of a pool whose connections were cut on purpose.
    os._exit(0)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@contextmanager
def _environment_of_server() -> Generator[None]:
    added = {"PYTHONPATH": str(_ROOT)}
    added |= of_the_run({**os.environ, **added})
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
