"""The temporary folders of child processes go with the process that started them, even if it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PARSE = """
import os, signal, sys
from ingest_pipeline.parsing.built_in_parsers import parse
print("".join(piece.text for piece in parse("page.html", [b"<p>Some words</p>"])), flush=True)
{end}
"""
MAKE = """
import os, sys
from ingest_pipeline.sandbox.folders import ChildFolders
folders = ChildFolders()
print(folders.make(), flush=True)
if os.fork() == 0:
    print(folders.make(), flush=True)
    os._exit(0)
os.wait()
print("waited", flush=True)
sys.stdin.read()
"""


def started(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed = started(PARSE.format(end="os.kill(os.getpid(), signal.SIGKILL)"), tmp_path)
    assert killed.communicate()[0].split() == ["Some", "words"]
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    ended = started(PARSE.format(end=""), tmp_path)
    assert ended.communicate()[0].split() == ["Some", "words"]
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_living_process_stays_and_a_fork_has_its_own(tmp_path: Path) -> None:
    with started(MAKE, tmp_path) as living:
        assert living.stdout is not None
        own, of_fork = (Path(living.stdout.readline().strip()) for _ in range(2))
        assert own.parent != of_fork.parent
        assert living.stdout.readline() == "waited\n"
        with started(MAKE, tmp_path) as other:
            assert other.stdout is not None
            assert Path(other.stdout.readline().strip()).exists()
            assert own.exists()
            assert not of_fork.exists(), "the fork is gone"
            other.kill()
        living.kill()
