"""A program that is forked from the preloaded process behaves like one that Python starts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dagster.preloaded import preloaded

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
