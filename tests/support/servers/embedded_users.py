"""Programs that use an embedded server, and what tests ask of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psycopg

from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres

REPOSITORY = Path(__file__).parents[3]
USER = """
import sys
from pathlib import Path
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.readline()
server.release()
"""


def stop_at_once(directory: Path) -> None:
    if pid := EmbeddedPostgres(directory).postmaster_pid():
        os.kill(pid, signal.SIGQUIT)
        wait_until_gone(pid)


@contextlib.contextmanager
def user_process(directory: Path, program: str = USER) -> Generator[subprocess.Popen[str]]:
    """Another process that uses the server until it reads a line."""
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def output_of(program: str, directory: Path) -> str:
    command = [sys.executable, "-c", program, str(directory)]
    return subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 300
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(url: str, statement: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        return "" if row is None else str(row[0])


def remember(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE remembered AS SELECT 42 AS answer")
