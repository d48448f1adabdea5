"""A process that imports Dagster and the package once, and forks the processes that tests start.

A process of Dagster takes two to three seconds of CPU to import what it uses. `ingest-pipeline ui` starts five of them,
and a sixth for each run. What the forked children do is unchanged, unless they are to be brisk.

The processes of pytest-xdist, and the servers from which tests of deaths fork their children, are forked from it too.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_STARTUP = Path(__file__).parent / "startup"
_LENGTH_BYTES = 8
_MAX_FILES = 64
_ABOVE_ALL_FILES = 1000
_PR_SET_PDEATHSIG = 1
_RUNS = "PRELOADED_PYTHON_OF_THE_RUN"
"""The variable that has the address of the preloaded process of a test run."""
_MODULES = (
    "dagster",
    "dagster._cli",
    "dagster._cli.dev",
    "dagster._cli.proxy_server_manager",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.root",
    "dagster._daemon.cli",
    "dagster._daemon.controller",
    "dagster._grpc.proxy_server",
    "dagster._grpc.server",
    "dagster._core.execution.run_cancellation_thread",
    "dagster_dg_cli.cli",
    "dagster_dg_cli.cli.check",
    "dagster_dg_cli.cli.labs",
    "dagster_dg_cli.cli.launch",
    "dagster_dg_cli.cli.list",
    "dagster_dg_cli.cli.plus",
    "dagster_dg_cli.cli.scaffold",
    "dagster_graphql",
    "dagster_graphql.schema",
    "dagster_postgres",
    "dagster_postgres.event_log",
    "dagster_postgres.run_storage",
    "dagster_postgres.schedule_storage",
    "dagster_webserver.cli",
    "dagster_webserver.webserver",
    "ingest_pipeline.api",
    "ingest_pipeline.cli.main",
    "ingest_pipeline.embedding.openai",
    "ingest_pipeline.ingestion.run",
    "ingest_pipeline.orchestration.build",
    "ingest_pipeline.orchestration.component",
    "ingest_pipeline.search.search",
    "ingest_pipeline.sources.bucket",
    "jinja2",
    "lance",
    "multiprocessing.spawn",
    "openai.resources.embeddings",
    "tests.support.dagster.brisk",
    "upath",
    "uvicorn",
    "wordllama",
    # What the tests themselves import.
    "boto3",
    "hypothesis.stateful",
    "langchain_core.retrievers",
    "markdown_it",
    "mcp.client.stdio",
    "playwright.sync_api",
    "pytest",
    "tokenizers",
)


def fork_test_processes() -> None:
    """Let the processes of pytest-xdist, which this process starts next, be forked from the preloaded one."""
    os.environ.update({**preloaded(os.environ), _RUNS: _address()})


def of_the_run(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a process is forked from the preloaded one, if the test run has one."""
    if _RUNS not in environment:
        return {}
    return {name: value for name, value in preloaded(environment).items() if environment.get(name) != value}


def without_preloaded(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, for a process that starts its own children as usual."""
    return {name: value for name, value in environment.items() if name != _RUNS}


def end_of_start() -> None:
    """Let the children of a process that was forked itself be started as usual."""
    os.environ.pop("PRELOADED_PYTHON", None)
    path = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder != str(_STARTUP)]
    if any(path):
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
    else:
        os.environ.pop("PYTHONPATH", None)
    sys.path[:] = [folder for folder in sys.path if folder != str(_STARTUP)]


def preloaded(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, for Python processes that are forked from the preloaded one."""
    path = f"{_STARTUP}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    return {**environment, "PYTHONPATH": path.rstrip(os.pathsep), "PRELOADED_PYTHON": _address()}


@cache
def _address() -> str:
    """The name of the socket of the one preloaded process of a test run, which ends with the run."""
    if known := os.environ.get(_RUNS):
        return known
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    owner = os.getppid() if run else os.getpid()
    address = f"preloaded-{run or owner}"
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        try:
            listener.bind(f"\0{address}")
        except OSError:
            return address  # another process of the run has started it
        listener.listen(64)
        os.set_inheritable(listener.fileno(), True)
        arguments = [sys.executable, "-m", "tests.support.dagster.preloaded", str(listener.fileno()), str(owner)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        os.posix_spawn(sys.executable, arguments, environment, file_actions=[nothing], setsid=True)
    return address


class _Server:
    """Forks a child for each request, and gives it the open files of the process that asked."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._listener, self._owner = listener, os.pidfd_open(owner)
        self._ended, self._wake = socket.socketpair()
        self._clients: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self) -> dict[str, Any] | None:
        """Serve until the owner ends. In a child, return its request."""
        for end in (self._ended, self._wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for source in (self._listener, self._ended, self._owner):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._owner:
                    return None
                if key.fileobj is self._listener:
                    if request := self._fork():
                        return request
                elif key.fileobj is self._ended:
                    self._answer()
                elif self._clients.get(key.data) is key.fileobj:  # else its child has ended, too, and was waited for
                    self._selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)  # the process that waited for it was killed

    def _fork(self) -> dict[str, Any] | None:
        client, _ = self._listener.accept()
        head, files, _, _ = socket.recv_fds(client, _LENGTH_BYTES, _MAX_FILES)
        body = client.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        try:
            request = json.loads(body)
        except ValueError:  # it was killed before it had asked
            client.close()
            for file in files:
                os.close(file)
            return None
        if (pid := os.fork()) == 0:
            self._forget(client)
            _take_files(files, request["files"])
            return request
        for file in files:
            os.close(file)
        self._clients[pid] = client
        self._selector.register(client, selectors.EVENT_READ, pid)
        with suppress(OSError):  # it was killed meanwhile
            client.sendall(pid.to_bytes(_LENGTH_BYTES, "big"))
        return None

    def _forget(self, client: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        os.close(self._owner)
        for end in (self._listener, self._ended, self._wake, client, *self._clients.values()):
            end.close()

    def _answer(self) -> None:
        """Send the status of each child that has ended to the process that waits for it."""
        with suppress(BlockingIOError):
            self._ended.recv(4096)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with self._clients.pop(ended[0]) as client:
                    with suppress(KeyError):
                        self._selector.unregister(client)
                    with suppress(OSError):  # it was killed meanwhile
                        client.sendall(ended[1].to_bytes(_LENGTH_BYTES, "big"))


def _wake_up(_: int, __: FrameType | None) -> None:
    """Do nothing: a signal wakes the selector only if it has a handler."""


def _take_files(files: list[int], numbers: list[int]) -> None:
    """Give the files the numbers that they had in the process that sent them."""
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, _ABOVE_ALL_FILES) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def _become(request: dict[str, Any]) -> None:
    """Do what Python does at its start, then run the program."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    kind, *arguments = request["arguments"]
    sys.orig_argv[1:] = request["arguments"]
    sys.path[:] = request["path"]
    importlib.invalidate_caches()
    sys.modules["ingest_pipeline.failpoints"].install_from_environment()
    sys.modules["tests.support.dagster.brisk"].make_brisk()
    if kind == "-m":
        sys.path.insert(0, request["folder"])
        sys.argv[:] = arguments
        sys.modules.pop(arguments[0], None)  # it is run, not imported
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        sys.argv[:] = ["-c", *arguments[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(arguments[0], main.__dict__)  # noqa: S102  the program of a test
    else:
        sys.argv[:] = request["arguments"]
        runpy.run_path(kind, run_name="__main__")


def _main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        gc.disable()
        for module in _MODULES:
            with suppress(ImportError):  # of an extra that is not installed; who needs it says so
                importlib.import_module(module)
        warnings.filterwarnings("ignore", "lance is not fork-safe")  # it is before its first use
        gc.freeze()  # what the children share would be copied if the garbage collector visited it
        gc.enable()
        gc.set_threshold(100_000, 50, 100)
        request = _Server(listener, int(sys.argv[2])).serve()
    if request is not None:
        _become(request)


if __name__ == "__main__":
    _main()
