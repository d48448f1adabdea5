"""What a document that takes over its parser can reach: nothing that is worth the trouble."""

from __future__ import annotations

import logging
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_pipeline.parsing import worker_pool
from ingest_pipeline.parsing.worker_pool import ParserLimits, ParserPool
from ingest_pipeline.sandbox import children, confinement
from ingest_pipeline.types import TextPiece

pytestmark = pytest.mark.promise("confinement")

SUPPORT = Path(__file__).parents[2] / "support" / "crash"
BLIND = """
import os, sys
from ingest_pipeline.sandbox import confinement
confinement.landlock_version = lambda: 0
kept = confinement.confine([], [], file_bytes=1 << 20, open_files=64)
try:
    seen = len(open(f"/proc/{os.getppid()}/environ", "rb").read())
except PermissionError:
    seen = "nothing"
print(kept, seen)
"""
UNABLE = """
from ingest_pipeline.sandbox import confinement
confinement.landlock_version = lambda: 0
confinement._filters_calls = lambda: False
confinement._NEW_USER = confinement._NEW_NET = -1
from ingest_pipeline.parsing import worker
worker.main()
"""

landlock = pytest.mark.skipif(not confinement.landlock_version(), reason="this kernel has no Landlock")
seccomp = pytest.mark.skipif("seccomp" in confinement.unavailable(), reason="this kernel has no seccomp")


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ParserPool]:
    """Children that do what their documents say."""
    monkeypatch.setattr(worker_pool, "_SCRIPT", SUPPORT / "hostile_parser.py")
    pool = ParserPool()
    yield pool
    pool.close()


def outcome(pool: ParserPool, attack: str) -> str:
    (piece,) = pool.extract("hostile.pdf", "application/pdf", attack.encode(), ParserLimits())
    return piece.text


@landlock
@pytest.mark.parametrize(
    "attack",
    [
        "open(f'/proc/{os.getppid()}/environ').read()",
        "open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
        "open(f'/proc/{os.getppid()}/cmdline').read()",
        "os.listdir('/')",
        "open('/etc/passwd').read()",
        "open('{secret}').read()",
        "os.listdir('{folder}')",
        "open('{folder}/planted', 'w')",
        "open('{secret}', 'a')",
        "os.unlink('{secret}')",
        "os.mkdir('{folder}/planted')",
        "os.symlink('{secret}', '{folder}/planted')",
    ],
)
def test_other_files_cannot_be_read(pool: ParserPool, tmp_path: Path, attack: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    attack = attack.replace("{secret}", str(secret)).replace("{folder}", str(tmp_path))
    assert outcome(pool, attack) == "PermissionError"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("secret", "s3cret")]


@seccomp
@pytest.mark.parametrize(
    "attack",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.pidfd_open(os.getppid())",
    ],
)
def test_network_programs_and_processes_cannot_be_reached(pool: ParserPool, attack: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert outcome(pool, attack.replace("{port}", str(server.getsockname()[1]))) == "PermissionError"


@seccomp
def test_limits_cannot_be_raised(pool: ParserPool) -> None:
    assert outcome(pool, "resource.setrlimit(resource.RLIMIT_CPU, (10_000, resource.RLIM_INFINITY))") in {
        "PermissionError",
        "ValueError",
    }
    for kind in ("AS", "CORE", "FSIZE", "NOFILE"):
        soft, hard = eval(outcome(pool, f"resource.getrlimit(resource.RLIMIT_{kind})"))  # noqa: S307  two numbers
        assert soft == hard != -1
    assert outcome(pool, "ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)") == "-1"


def test_each_child_has_its_own_folder_that_is_removed_with_it(pool: ParserPool) -> None:
    folder = Path(outcome(pool, "os.getcwd()").strip("'"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert outcome(pool, "open('planted', 'w').write('x')") == "1"
    assert (folder / "planted").exists()
    pool.close()
    assert not folder.exists()
    assert Path(outcome(pool, "os.getcwd()").strip("'")) != folder


@seccomp
def test_without_landlock_the_parents_environment_cannot_be_read_either() -> None:
    done = subprocess.run([sys.executable, "-c", BLIND], stdout=subprocess.PIPE, text=True, check=True)
    if "other processes" in done.stdout:
        pytest.skip("this kernel lets this user have no namespaces")
    assert done.stdout == "['files'] nothing\n"


def test_missing_confinement_is_reported_once(
    pool: ParserPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    script = tmp_path / "unable.py"
    script.write_text(UNABLE)
    monkeypatch.setattr(worker_pool, "_SCRIPT", script)
    monkeypatch.setattr(children, "MAX_REQUESTS_PER_CHILD", 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert pool.extract("a.html", "text/html", b"<p>text</p>", ParserLimits()) == [TextPiece("text\n")]
    (said,) = [record.getMessage() for record in caplog.records if record.name == children.__name__]
    assert "could not drop its rights to files, network, other processes" in said
