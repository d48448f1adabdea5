"""Whether a process is gone, when it is certain."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingest_pipeline import processes
from ingest_pipeline.processes import is_dead, is_remote, this_process

_PROGRAM = "from ingest_pipeline.processes import this_process; print(this_process(), flush=True); input()"


def test_this_process_is_not_dead() -> None:
    assert not is_dead(this_process())


def test_a_killed_process_is_dead_before_its_parent_collects_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not is_dead(name)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(name)
    child.communicate()
    assert is_dead(name)


def test_another_process_with_the_same_number_is_distinguished() -> None:
    assert is_dead(f"{this_process()}0")


def test_a_process_of_another_machine_cannot_be_judged() -> None:
    for name in ("elsewhere:1:1", "elsewhere/1:1:1:1", "nonsense", ""):
        assert not is_dead(name)
        assert is_remote(name)


def with_files(monkeypatch: pytest.MonkeyPatch, machine: str, boot: str, namespace: str = "pid:[4026531836]") -> str:
    """The name of this process, were these the ids of its machine and boot, and this its pid namespace."""
    really = processes._read

    def read(path: str) -> str:
        return {"/etc/machine-id": machine, "/proc/sys/kernel/random/boot_id": boot}.get(path) or (
            "" if path.endswith(("machine-id", "mountinfo")) else really(path)
        )

    def readlink(_: Path) -> Path:
        return Path(namespace)

    monkeypatch.setattr(processes, "_read", read)
    monkeypatch.setattr(Path, "readlink", readlink)
    processes._name.cache_clear()
    processes._container.cache_clear()
    return this_process()


@pytest.fixture
def _forget_names() -> Generator[None]:
    yield
    processes._name.cache_clear()
    processes._container.cache_clear()


@pytest.mark.usefixtures("_forget_names")
def test_a_process_from_before_the_last_boot_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    before = with_files(monkeypatch, "machine", "first boot")
    assert not is_dead(before)
    with_files(monkeypatch, "machine", "second boot")
    assert is_dead(before)
    assert not is_remote(before)


@pytest.mark.usefixtures("_forget_names")
def test_a_clone_with_the_same_host_name_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    original = with_files(monkeypatch, "machine", "its boot")
    clone = with_files(monkeypatch, "another machine", "another boot")
    assert original.split("/")[0] == clone.split("/")[0]
    assert is_remote(original)
    assert not is_dead(original)


@pytest.mark.usefixtures("_forget_names")
@pytest.mark.parametrize("namespace", ["pid:[4026531836]", "pid:[4026532999]"])
def test_without_a_machine_id_processes_of_another_boot_cannot_be_judged(
    monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    """Another machine's container may have the same host name, machine-id and number of its namespace."""
    machine = "" if "31836" in namespace else "that of an image"
    before = with_files(monkeypatch, machine, "first boot", namespace)
    assert not is_dead(before)
    with_files(monkeypatch, machine, "second boot", namespace)
    assert not is_dead(before)
    assert is_remote(before)


def test_a_process_of_another_container_with_this_host_name_cannot_be_judged() -> None:
    """A pid namespace of its own, as a container has."""
    unshared = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", _PROGRAM]
    child = subprocess.Popen(unshared, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    if not name:
        pytest.skip("namespaces may not be made here")
    assert name.startswith(socket.gethostname())
    assert name.split(":")[2] == "1"
    assert not is_dead(name)
    assert is_remote(name)
    child.communicate("")
    assert not is_dead(name)


def test_a_container_keeps_its_identity_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
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
        return processes._container.__wrapped__(1)

    first = name_in("first", "1")
    assert first == name_in("first", "2") != ""
    assert first != name_in("second", "1")


@pytest.mark.parametrize(("frozen_before", "expected"), [(0, ["freeze", "work", "unfreeze"]), (7, ["work"])])
def test_the_heap_is_frozen_for_the_time_of_a_block_unless_the_program_froze_it(
    monkeypatch: pytest.MonkeyPatch, frozen_before: int, expected: list[str]
) -> None:
    calls: list[str] = []
    collector = SimpleNamespace(
        get_freeze_count=lambda: frozen_before,
        freeze=lambda: calls.append("freeze"),
        unfreeze=lambda: calls.append("unfreeze"),
    )
    monkeypatch.setattr(processes, "gc", collector)
    with processes.frozen_heap():
        calls.append("work")
    assert calls == expected
