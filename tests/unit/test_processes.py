"""Whether a process is gone, when it is certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from ingest_pipeline.processes import is_gone, this_process

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
