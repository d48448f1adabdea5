"""Whether a process is gone, when it is certain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ingest_pipeline import processes
from ingest_pipeline.processes import is_elsewhere, is_gone, this_process

_PROGRAM = "from ingest_pipeline.processes import this_process; print(this_process(), flush=True); input()"


def test_this_process_is_here() -> None:
    assert not is_gone(this_process())


def test_a_killed_process_is_gone_before_its_parent_collects_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not is_gone(name)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name)
    child.communicate()
    assert is_gone(name)


def test_another_process_under_the_same_number_is_not_it() -> None:
    assert is_gone(f"{this_process()}0")


def test_a_process_of_another_machine_cannot_be_judged() -> None:
    assert not is_gone("elsewhere:1:1")
    assert not is_gone("nonsense")


def test_a_process_of_another_container_with_this_host_name_cannot_be_judged() -> None:
    """A pid namespace of its own, as a container has."""
    unshared = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", _PROGRAM]
    child = subprocess.Popen(unshared, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    if not name:
        pytest.skip("namespaces may not be made here")
    assert name.startswith(socket.gethostname())
    assert name.split(":")[1] == "1"
    assert not is_gone(name)
    assert is_elsewhere(name)
    child.communicate("")
    assert not is_gone(name)


def test_a_container_is_itself_after_a_restart_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        "1 0 0:1 / / rw - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir=/l/{}/diff,workdir=/w\n"
        "2 1 0:2 / /proc rw - proc proc rw\n"
    )

    def name_in(layer: str, namespace: str) -> str:
        def read(path: str) -> str:
            return mounts.format(layer) if path.endswith("mountinfo") else "boot"

        def readlink(_: Path) -> Path:
            return Path(f"pid:[{namespace}]")

        monkeypatch.setattr(Path, "readlink", readlink)
        monkeypatch.setattr(processes, "_read", read)
        return processes._container.__wrapped__(1)  # pyright: ignore[reportPrivateUsage]

    first = name_in("first", "1")
    assert first == name_in("first", "2") != ""
    assert first != name_in("second", "1")
