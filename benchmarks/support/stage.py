"""The environment of a benchmark: a folder, a Postgres server, and child processes with counted time and memory."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import psycopg

from benchmarks.support.endpoint import DIMENSIONS, ROOT
from ingest_pipeline.postgres.embedded.server import EmbeddedPostgres
from tests.support.children import children, cpu_seconds

_databases = itertools.count()


@dataclass(frozen=True, slots=True)
class Job:
    """What a child process is to ingest, and where to."""

    source: str
    database: str
    lancedb: str
    endpoint: str
    workers: int = 1
    dimensions: int = DIMENSIONS
    command: str = "ingest"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job took, imports not counted."""

    seconds: float
    cpu: float
    """CPU seconds of the process and of the workers that it started."""
    postgres_cpu: float
    """CPU seconds of the database server, all its processes."""
    peak: int
    """Most memory resident at once, bytes."""
    wal: int = 0
    """Bytes that the database server wrote to its log."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A folder that goes away, and a server in it."""

    folder: Path
    server: EmbeddedPostgres
    url: str

    def database(self) -> str:
        """The url of an empty database."""
        name = f"benchmark_{next(_databases)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"{self.url.rpartition('/')[0]}/{name}"

    def run(self, module: str, job: Job) -> Cost:
        """Do a job in a process of its own."""
        os.sync()  # a job that flushes its files must not wait for what others have left to be written
        before, wal = self._postgres_cpu(), self._wal()
        process = self.start(module, job)
        out, _ = process.communicate()
        assert process.returncode == 0, module
        seconds, cpu, peak = json.loads(out)
        return Cost(seconds, cpu, self._postgres_cpu() - before, peak, self._wal() - wal)

    def start(self, module: str, job: Job, **environment: str) -> subprocess.Popen[str]:
        """Begin a job in a process of its own."""
        command = [sys.executable, "-m", module, json.dumps(asdict(job))]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})

    def _wal(self) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def _postgres_cpu(self) -> float:
        """Of the postmaster, its living children, and those that ended."""
        postmaster = self.server.postmaster_pid()
        total = 0
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, _, rest = entry.read_text().partition(" (")
            except OSError:
                continue  # it ended meanwhile
            fields = rest.rpartition(") ")[2].split()
            if int(pid) == postmaster:
                total += sum(map(int, fields[11:15]))  # utime, stime, and the same of the children waited for
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13]))
        return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def stage() -> Generator[Stage]:
    """Set everything up, and clean it away."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-pipeline-benchmark-"))
    server = EmbeddedPostgres(folder / "postgres", prepare=["ALTER ROLE ingest_pipeline CREATEDB"])
    try:
        yield Stage(folder, server, server.start())
    finally:
        server.release()
        shutil.rmtree(folder, ignore_errors=True)


def serve(work: Callable[[Job], None]) -> None:
    """In a child process: do the job of the command line, and print what it took."""
    job = Job(**json.loads(sys.argv[1]))
    cpu, start = _cpu(), perf_counter()
    work(job)
    seconds = perf_counter() - start
    print(json.dumps([seconds, _cpu() - cpu, _peak()]))


def _cpu() -> float:
    """CPU seconds of this process and of its children, those that ended and those that are kept for more work."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + sum(map(cpu_seconds, children()))


def _peak() -> int:
    """Bytes, of this process and its children. What getrusage says begins with the size of the process before."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in (os.getpid(), *children())]
    return sum(1024 * int(status.partition("VmHWM:")[2].split()[0]) for status in statuses)
