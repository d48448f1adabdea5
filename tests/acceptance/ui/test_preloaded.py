"""A program that is forked from the preloaded process behaves like one that Python starts."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.crash.crash import forked
from tests.support.dagster.preloaded import _Server, preloaded  # pyright: ignore[reportPrivateUsage]

_PROGRAM = "import dagster, os, signal, sys, time; from pathlib import Path; "


def started(program: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = preloaded({**os.environ, "COLOUR": "green"})
    command = [sys.executable, "-c", f"{_PROGRAM}{program}", *arguments]
    return subprocess.Popen(
        command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )


def test_it_has_the_arguments_files_folder_and_environment_of_its_process(tmp_path: Path) -> None:
    shown = "print(sys.argv[1:], os.environ['COLOUR'], Path.cwd(), sys.stdin.read()); sys.exit(7)"
    with started(shown, "one", folder=tmp_path) as process:
        printed, _ = process.communicate("text")
    assert printed == f"['one'] green {tmp_path} text\n"
    assert process.returncode == 7


def test_a_process_of_pytest_xdist_is_forked_although_it_has_flags(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-c", "import sys;exec(eval(sys.stdin.readline()))"]
    with subprocess.Popen(
        command, env=preloaded(os.environ), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        printed, _ = process.communicate("'import os, sys; print(os.getpid(), sys.stdin.read())'\ntext")
    child, read = printed.split()
    assert int(child) != process.pid, "it is forked from the preloaded process"
    assert read == "text"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_by_the_signal_that_ends_its_process(tmp_path: Path, number: signal.Signals) -> None:
    with started("print(os.getpid(), flush=True); time.sleep(600)", folder=tmp_path) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert child != process.pid, "it is forked from the preloaded process"
        handle = os.pidfd_open(child)
        process.send_signal(number)
        assert process.wait(60) == -number
        assert select.select([handle], [], [], 60)[0], "the child has ended, too"
        os.close(handle)


class _BothEnds(selectors.DefaultSelector):
    """Waits until a child and its client have ended, and reports the child first."""

    def __init__(self, children: socket.socket, *, is_client_reported: bool) -> None:
        super().__init__()
        self._children, self._is_client_reported = children, is_client_reported

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        while True:
            ready = super().select(timeout)
            clients = [each for each in ready if each[0].data is not None]
            children = [each for each in ready if each[0].fileobj is self._children]
            if clients and children:
                return children + (clients if self._is_client_reported else [])
            if not clients and not children:
                return ready


def serve(address: str, is_client_reported: bool) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen(64)
        own, server = os.getpid(), _Server(listener, os.getppid())
        both_ends = _BothEnds(server._ended, is_client_reported=is_client_reported)  # pyright: ignore[reportPrivateUsage]
        server._selector = both_ends  # pyright: ignore[reportPrivateUsage]
        if server.serve() is not None:
            select.select([os.pidfd_open(own)], [], [])  # a child, which ends with the server


def connected(address: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    while True:
        try:
            client.connect(f"\0{address}")
        except ConnectionRefusedError:  # it has not begun to listen
            continue
        return client


def ask_for_a_child(client: socket.socket) -> int:
    body = json.dumps({"files": [0]}).encode()
    with Path(os.devnull).open() as nothing:
        socket.send_fds(client, [len(body).to_bytes(8, "big")], [nothing.fileno()])
    client.sendall(body)
    return int.from_bytes(client.recv(8), "big")


@pytest.mark.parametrize("is_client_reported", [True, False], ids=["at once", "after the child"])
def test_it_serves_on_if_a_process_and_its_child_end_together(*, is_client_reported: bool) -> None:
    address = f"preloaded-{uuid4()}"
    server = forked(serve, address, is_client_reported)
    for _ in range(2):
        with connected(address) as client:
            child = ask_for_a_child(client)
            assert child, "the server has not ended"
            os.kill(child, signal.SIGKILL)
    server.kill()
    server.join()


def test_it_serves_on_if_a_process_ends_before_it_has_asked() -> None:
    address = f"preloaded-{uuid4()}"
    server = forked(serve, address, True)
    connected(address).close()
    with connected(address) as client:
        assert ask_for_a_child(client), "the server has not ended"
    server.kill()
    server.join()
