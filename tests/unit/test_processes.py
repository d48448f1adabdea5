"""Whether a process is gone, when it is certain."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from ingest_pipeline import processes
from ingest_pipeline.processes import is_dead, is_remote, release_memory, this_process

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


class Heap:
    """Stands for the garbage collector, and records what is called."""

    def __init__(self, frozen: int) -> None:
        self.calls: list[str] = []
        self.thresholds = (700, 10, 10)
        self._frozen = frozen

    def get_freeze_count(self) -> int:
        self.calls.append("count")
        return self._frozen

    def freeze(self) -> None:
        self.calls.append("freeze")
        self._frozen = 9

    def unfreeze(self) -> None:
        self.calls.append("unfreeze")
        self._frozen = 0

    def get_threshold(self) -> tuple[int, int, int]:
        return self.thresholds

    def set_threshold(self, *thresholds: int) -> None:
        first, second, third = thresholds
        self.thresholds = first, second, third


@pytest.fixture(params=[0, 7])
def heap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Heap:
    """A heap of a process in which no block has run, with so many objects that the program froze."""
    made = Heap(request.param)
    monkeypatch.setattr(processes, "gc", made)
    monkeypatch.setattr(processes, "is_heap_frozen", cache(processes.is_heap_frozen.__wrapped__))
    return made


@pytest.mark.parametrize("heap", [0], indirect=True)
def test_the_heap_is_frozen_for_the_time_of_a_block(heap: Heap) -> None:
    with processes.frozen_heap():
        heap.calls.append("work")
    assert heap.calls == ["count", "freeze", "work", "unfreeze"]


@pytest.mark.parametrize("heap", [7], indirect=True)
def test_a_heap_that_the_program_froze_stays_frozen(heap: Heap) -> None:
    with processes.frozen_heap():
        heap.calls.append("work")
    assert heap.calls == ["count", "work"]


@pytest.mark.parametrize("heap", [0], indirect=True)
@pytest.mark.parametrize(
    ("before", "during"),
    [((700, 10, 10), (50_000, 20, 20)), ((90_000, 5, 5), (90_000, 20, 20)), ((0, 10, 10), (0, 10, 10))],
    ids=["of Python", "rarer", "off"],
)
def test_collections_are_rare_for_the_time_of_a_block(
    heap: Heap, before: tuple[int, int, int], during: tuple[int, int, int]
) -> None:
    heap.thresholds = before
    with processes.frozen_heap():
        assert heap.thresholds == during
    assert heap.thresholds == before


def test_frozen_objects_are_counted_once_in_a_process(heap: Heap) -> None:
    """Counting visits each of them, which takes longer than the ingest of a small document."""
    for _ in range(3):
        with processes.frozen_heap():
            pass
    assert heap.calls.count("count") == 1


@pytest.mark.parametrize("heap", [0], indirect=True)
def test_the_heap_is_frozen_until_the_last_of_overlapping_blocks_ends(heap: Heap) -> None:
    with ExitStack() as second:
        with processes.frozen_heap():
            second.enter_context(processes.frozen_heap())
            heap.calls.append("both")
        heap.calls.append("one")
    assert heap.calls == ["count", "freeze", "both", "one", "unfreeze"]


def test_memory_that_was_freed_is_given_back() -> None:
    blocks = [bytes(900) for _ in range(60_000)]
    full = resident_bytes()
    kept = blocks[::100]  # they keep the C library from shrinking its heap by itself
    del blocks
    assert full - resident_bytes() < 20_000_000
    release_memory()
    assert full - resident_bytes() > 30_000_000
    assert len(kept) == 600


def resident_bytes() -> int:
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])


_LARGE_BLOCKS = """
from pathlib import Path
from ingest_pipeline.processes import map_large_blocks

def resident_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0])

map_large_blocks()
freed = b"x" * 2_000_000
del freed
full = [bytes([number]) * 1_000_000 for number in range(60)]
kept, before = full[::2], resident_bytes()
del full
print(before - resident_bytes())
"""


def test_large_blocks_are_given_back_when_they_are_freed() -> None:
    # In a process of its own, whose heap has no room left from other tests.
    done = subprocess.run([sys.executable, "-c", _LARGE_BLOCKS], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000_000


def test_arrow_keeps_the_allocator_that_the_environment_names() -> None:
    program = "import pyarrow; from ingest_pipeline.processes import map_large_blocks; map_large_blocks(); "
    program += "print(pyarrow.default_memory_pool().backend_name)"
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    for named, used in ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc"), ({}, "system"):
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment | named, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == used
