"""Dagster's own processes die while they work on the corpus: SIGKILL of what `ingest-pipeline ui` started.

Afterwards the stores agree, nothing is in doubt after one tick of the recovery sensor, Dagster shows no dead run as
running, and the next request does the rest of the work.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from ingest_pipeline.cli import _session
from ingest_pipeline.maintenance.sweep import sweep
from tests.support.dagster.preloaded import preloaded
from tests.support.dagster.web_ui import seldom_collecting
from tests.support.dagster.world import METADATA, DagsterWorld
from tests.support.servers.ports import free_port
from tests.support.servers.tcp_proxy import Direction, TcpProxy
from tests.support.storm.dagster import Dagster
from tests.support.storm.killer import commit_of_a_publication
from tests.support.storm.processes import command_line, descendants, run_workers
from tests.support.world import paragraphs

pytestmark = pytest.mark.timeout(900)
_PATIENCE_SECONDS = 480
_OPEN = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)


@pytest.fixture
def world(dagster: DagsterWorld) -> DagsterWorld:
    """The same corpus and instance as this process sees them."""
    dagster.put("a.txt", paragraphs("alpha", 2))
    with _session.context(dagster.settings, create=True):
        pass  # so that the first COMMIT of a saga that comes by is that of the document
    return dagster


@contextmanager
def running_ui(
    world: DagsterWorld,
    directory: Path,
    proxy: TcpProxy,
    start: Callable[[Mapping[str, str]], dict[str, str]] = seldom_collecting,
) -> Generator[Dagster]:
    """`ingest-pipeline ui`, whose processes reach Postgres through the proxy.

    Args:
        world: The corpus.
        directory: Folder of the log.
        proxy: The proxy before Postgres.
        start: Changes the environment, for a quick start of the processes.
    """
    assert world.settings.database_url is not None
    environment = {**os.environ, "INGEST_DATABASE_URL": proxy.instead_of(world.settings.database_url)}
    # Its source sensor leaves the file alone: a run of its own might be at work or about to begin when one is killed.
    environment["INGEST_MIN_AGE_SECONDS"] = "86400"
    environment.pop("DAGSTER_POSTGRES_URL", None)
    dagster = Dagster(start(environment), directory, free_port())
    below: list[int] = []
    try:
        dagster.wait_until_up()
        below = descendants(dagster.pid)
        yield dagster
    finally:
        proxy.forward()
        below += descendants(dagster.pid)
        dagster.stop()
        try:
            eventually(lambda: not any(is_alive(pid) for pid in below))
        finally:
            for pid in filter(is_alive, below):
                os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_runs(world: DagsterWorld) -> list[dg.DagsterRun]:
    return list(world.instance.get_runs(dg.RunsFilter(statuses=_OPEN)))


def check_settled(world: DagsterWorld, run_id: str, in_flight: int = 0) -> None:
    """One tick of the recovery sensor ends the run; the next request does what is left, and pays for it once."""
    world.tick("docs_recovery_sensor")
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.is_finished
    with _session.corpus(world.settings) as corpus:
        sweep(corpus)  # a dying writer may have closed a file after its saga was settled
    assert world.audit().violations == []
    assert world.run().success
    assert open_runs(world) == []
    assert world.materialized(METADATA) == {"a.txt"}
    report = world.audit()
    assert (report.documents, report.violations) == (1, [])
    assert world.embeddings.embedded <= report.chunks + in_flight


def states(world: DagsterWorld) -> set[str]:
    """What became of the sagas. Compensated: its version was made and undone."""
    with _session.corpus(world.settings) as corpus, corpus.database.transaction() as connection:
        return {row["state"] for row in connection.execute("SELECT state::text FROM ingest_pipeline.saga")}


@pytest.mark.promise("dagster-deaths")
def test_a_run_worker_killed_between_the_two_stores_is_settled_by_one_tick_and_a_killed_ui_leaves_no_process(
    world: DagsterWorld, tmp_path: Path, proxy: TcpProxy
) -> None:
    """The table has a staged version, and Postgres none: killed as its COMMIT comes by, which then never arrives."""
    with running_ui(world, tmp_path, proxy, start=preloaded) as dagster:
        killed: list[int] = []
        is_commit = commit_of_a_publication()

        def kill_at_commit(block: bytes, direction: Direction) -> bool:
            if not is_commit(block, direction):
                return False
            for pid in run_workers(dagster.pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return True

        fired = proxy.cut_when(kill_at_commit)
        run_id = dagster.launch()
        assert fired.wait(_PATIENCE_SECONDS)
        assert killed
        eventually(lambda: not any(is_alive(pid) for pid in killed))
        check_settled(world, run_id)
        assert states(world) >= {"abandoned", "published"}

        below = descendants(dagster.pid)
        os.kill(dagster.pid, signal.SIGKILL)
        eventually(lambda: not any(is_alive(pid) for pid in below))


@pytest.mark.promise("dagster-deaths")
@pytest.mark.soak
@pytest.mark.parametrize("victim", ["code server", "daemon", "run worker"])
def test_killing_a_process_of_dagster_during_a_run_stops_nothing_for_ever(
    world: DagsterWorld, tmp_path: Path, proxy: TcpProxy, victim: str
) -> None:
    with running_ui(world, tmp_path, proxy) as dagster:
        world.embeddings.latency = 10.0
        run_id = dagster.launch()
        eventually(lambda: world.embeddings.requests > 0)
        for pid in processes_of(dagster, victim):
            os.kill(pid, signal.SIGKILL)
        # Whether the run goes on or dies with it is Dagster's affair; that it ends is ours.
        eventually(lambda: world.tick("docs_recovery_sensor") is not None and open_runs(world) == [])
    world.embeddings.latency = 0.0
    check_settled(world, run_id, in_flight=world.embeddings.embedded)


def processes_of(dagster: Dagster, victim: str) -> list[int]:
    """The processes to kill; there is at least one."""
    if victim == "run worker":
        found = run_workers(dagster.pid)
    else:
        words = {"daemon": b"dagster._daemon", "code server": b"grpc"}[victim]
        found = [pid for pid in descendants(dagster.pid) if words in command_line(pid)]
    assert found, [command_line(pid) for pid in descendants(dagster.pid)]
    return found
