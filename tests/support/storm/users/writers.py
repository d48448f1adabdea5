"""Writers: the command line, the library and backfills, each in processes that may be killed at any time."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random
from threading import Lock
from typing import Any

import psycopg

from ingest_pipeline.corpus.saga_timeouts import PATIENCE_SECONDS
from ingest_pipeline.errors import UnavailableError, VersionGoneError
from ingest_pipeline.failpoints import Boundary
from ingest_pipeline.postgres.catalog import history
from ingest_pipeline.postgres.database import Connection, Database
from tests.support.crash import jobs as crash_jobs
from tests.support.crash.crash import Child, Place
from tests.support.storm.contents import State, fingerprint
from tests.support.storm.dagster import Dagster
from tests.support.storm.ledger import blocked_since, erased_since
from tests.support.storm.processes import is_stopped, send
from tests.support.storm.readers import Reading
from tests.support.storm.stage import Stage
from tests.support.storm.users import jobs as storm_jobs
from tests.support.world import Address

# The longest time for which a job may wait by the engine's own limits: attempts to publish begin for PATIENCE_SECONDS,
# then the last attempt and the settling after it each wait for the lock; before that, planning and preparing wait for
# the source and the API. Time for which the job itself was stopped is not counted.
_LOCK_SECONDS = 120.0  # as `limit_waiting` says
_LIBRARY_SECONDS = PATIENCE_SECONDS + 2 * _LOCK_SECONDS + 120.0
# Added for Dagster's own storage, and for stops of processes that are not tracked here.
CLI_SECONDS = _LIBRARY_SECONDS + 120.0
"""Seconds within which a command has to end."""
ENDING_SECONDS = CLI_SECONDS + 60.0
"""Seconds within which every writer has to end after the storm."""
_SILENCE_SECONDS = 10.0
# Timestamps of an object store are whole seconds.
_CLOCK_STEP_SECONDS = 1.0
_PATIENCE = 100
_GATED_SHARE = 0.4
_JOBS = {"ingest": 6, "ingest of some": 4, "recover": 1, "sweep": 1, "maintain": 2}
_starting = Lock()
_RAISED = re.compile(r"[\w.]+(Error|Exception)\b")


class Victims:
    """Processes that may be disrupted, by kind."""

    def __init__(self) -> None:
        self._pids: defaultdict[str, set[int]] = defaultdict(set)
        self._lock = Lock()

    @contextmanager
    def offer(self, kind: str, pid: int) -> Generator[None]:
        with self._lock:
            self._pids[kind].add(pid)
        try:
            yield
        finally:
            with self._lock:
                self._pids[kind].discard(pid)

    def of(self, kind: str) -> list[int]:
        with self._lock:
            return sorted(self._pids[kind])


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a run that begins now has to publish if it succeeds."""

    states: dict[str, State]
    at_head: frozenset[str]
    """Keys of the documents at head."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))


class Acknowledgements:
    """Reported publications, to be compared with what readers see."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._versions: set[int] = set()

    def expect(self) -> Expectation:
        """What a run that begins now has to publish if it succeeds."""
        reading = self._read()
        states = self._stage.contents.settled(self._stage.settings.min_age_seconds + _CLOCK_STEP_SECONDS)
        return Expectation(states, frozenset(reading.documents if reading is not None else states))

    def succeeded(self, who: str, expected: Expectation) -> None:
        """Check after a successful run over everything: readers see each file as the run found it, or later."""
        reading = self._read()
        if reading is None:
            return
        self._stage.figures.count("acknowledged: runs over everything")
        withheld = self._withheld(expected)
        for key, state in expected.states.items():
            if key in withheld:
                continue
            # The run had nothing to do if a file was gone from the source and from head. Another run that read the file
            # before it was removed may still publish it; the next comparison removes it.
            if state.text is None and key not in expected.at_head:
                continue
            # The run may have found a file that turned bad after it began, and left what was published before.
            if self._stage.contents.turned_bad_after(state):
                continue
            seen = self._stage.contents.sequences(key, fingerprint(reading.text(key)))
            if not state.bad and max(seen, default=-1) < state.sequence:
                self._stage.figures.violation(
                    f"{who} succeeded, and at head {reading.version} {key} is older than when it began: state {seen}, "
                    f"not {state.sequence}, which is {'no file' if state.text is None else repr(state.text[:60])}"
                )

    def _withheld(self, expected: Expectation) -> set[str]:
        """Documents that a run leaves alone: a publication with them is blocked, or they were erased."""
        for _ in range(_PATIENCE):
            with (
                suppress(UnavailableError),
                Database(self._stage.database_url) as database,
                database.transaction() as connection,
            ):
                blocked = blocked_since(connection, expected.began)
                return blocked | erased_since(connection, expected.states, expected.began)
            time.sleep(0.3)
        return set(expected.states)

    def _read(self) -> Reading | None:
        """What a reader sees now. None, which is a violation, if no reader is served for half a minute."""
        for _ in range(_PATIENCE):
            try:
                with self._stage.corpus() as corpus:
                    return Reading.at(corpus, corpus.head().head_version)
            except (UnavailableError, VersionGoneError):
                time.sleep(0.3)
        self._stage.figures.violation("a reader was refused for half a minute")
        return None

    def versions(self, versions: list[int]) -> None:
        self._stage.figures.count("acknowledged: publications of library writers", len(versions))
        self._versions.update(versions)

    def check(self, connection: Connection, corpus: str) -> None:
        """Check that every acknowledged version was head."""
        if lost := self._versions - history.published_versions(connection, corpus, self._versions):
            self._stage.figures.violation(f"versions {sorted(lost)} were acknowledged and never published")


def run_command_line(stage: Stage, victims: Victims, acknowledged: Acknowledgements, pause: float) -> None:
    """Act as a user who runs `ingest-pipeline ingest`, until the storm is over."""
    random = stage.random("command line")
    while not stage.calm.wait(random.uniform(0, pause)):
        keys = (
            random.sample(stage.contents.known(), k=min(2, len(stage.contents.known())))
            if random.random() < 0.3
            else []
        )
        expected = acknowledged.expect()
        status = ingest_once(stage, victims, keys, failpoint_of(random), gated=random.random() < _GATED_SHARE)
        if status == 0 and not keys:
            acknowledged.succeeded("`ingest`", expected)


def ingest_once(
    stage: Stage, victims: Victims, keys: list[str], failpoints: str = "", *, gated: bool = False
) -> int | None:
    """Run `ingest-pipeline ingest`; returns its exit status, None if it had to be killed."""
    with tempfile.TemporaryFile("w+", dir=stage.directory) as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest_pipeline.cli.main", "ingest", "--json", *keys],
            env=stage.environment("writers", gated=gated) | {"INGEST_FAILPOINTS": failpoints},
            cwd=stage.directory,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        stage.reaper.spare(process.pid)
        with victims.offer("command line", process.pid):
            try:
                status = process.wait(CLI_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stage.figures.violation(f"`ingest` did not end within {CLI_SECONDS:g} s")
                return None
        said.seek(0)
        told = said.read()
    stage.figures.count(f"command line: exit {status}")
    if status != 0:
        stage.disruptions.moment()  # requests under way were lost with it
    if "did not pass its gates" in told:
        stage.figures.count("command line: a publication was blocked")
    if "was erased, and is not ingested again" in told and keys:
        stage.figures.count("command line: named an erased document")
    elif "There is no document" in told and keys:
        stage.figures.count("command line: named a document that is gone")  # from the source, and by `drop` from head
    elif "Traceback" in told:
        stage.figures.count("command line: ended in a traceback")
        raised = [line for line in told.splitlines() if _RAISED.match(line)]
        stage.figures.note(f"`ingest` exit {status} with a traceback: {raised[-1][:250] if raised else told[-250:]}")
    elif status == 1:
        told_first = next((line for line in told.splitlines() if line.startswith("Error:")), told[-250:])
        stage.figures.note(f"`ingest` exit 1: {told_first[:250]}")
    elif status > 1:
        stage.figures.violation(f"`ingest` ended with {status}: {told[-300:]}")
    return status


def run_library(stage: Stage, victims: Victims, acknowledged: Acknowledgements, name: str, pause: float) -> None:
    """Run programs that use the library, one after another, until the storm is over."""
    random = stage.random(name)
    while not stage.calm.wait(random.uniform(0, pause)):
        job = random.choices(list(_JOBS), list(_JOBS.values()))[0]
        expected = acknowledged.expect()
        outcome = outcome_of(stage, victims, _library_writer(stage, random, job), job, random)
        if outcome is not None and job.startswith("ingest"):
            versions, failed = outcome
            acknowledged.versions(versions)
            if job == "ingest" and not failed:
                acknowledged.succeeded("a library writer", expected)


def _library_writer(stage: Stage, random: Random, job: str) -> Child:
    """A child that runs the job, and sometimes dies or stops at a boundary of the engine."""
    fates = fates_of(random)
    gated = stage.gated_address if random.random() < _GATED_SHARE else stage.address
    return start(partial(_child, stage, random, job, gated, fates))


def fates_of(random: Random) -> dict[str, Place]:
    """Where a child dies or stops; most do not."""
    fate = random.choices(["lives", "kill_at", "stop_at"], [5, 2, 2])[0]
    return {} if fate == "lives" else {fate: _some_place(random)}


def failpoint_of(random: Random) -> str:
    """Where a command dies, as a value of INGEST_FAILPOINTS; most do not."""
    return _some_place(random).failpoint("kill") if random.random() < 0.25 else ""


def start(make: Callable[[], Child]) -> Child:
    """Start a child. That changes the environment for a moment, and several threads start children."""
    with _starting:
        return make()


def _child(stage: Stage, random: Random, job: str, address: Address, fates: dict[str, Place]) -> Child:
    match job:
        case "ingest of some":
            known = stage.contents.known()
            return Child(storm_jobs.ingest, address, random.sample(known, k=min(3, len(known))), **fates)
        case "recover":
            return Child(storm_jobs.recover, address, _SILENCE_SECONDS, **fates)
        case "sweep":
            return Child(crash_jobs.sweep, address, **fates)
        case "maintain":
            return Child(crash_jobs.maintain, address, **fates)
        case _:
            return Child(storm_jobs.ingest, address, **fates)


def _some_place(random: Random) -> Place:
    boundary = random.choice(list(Boundary))
    return Place(boundary, random.choice(["before", "after"]), random.choice([1, 1, 2, 5]))


def outcome_of(stage: Stage, victims: Victims, child: Child, job: str, random: Random) -> Any:
    """The result of a child, None if it failed or was killed."""
    with victims.offer("library writer", child.pid):
        began, stopped = time.monotonic(), 0.0
        while child.runs():
            if time.monotonic() - began - stopped > _LIBRARY_SECONDS:
                _give_up(stage, child, job)
                break
            if is_stopped(child.pid):
                stopped -= time.monotonic()
                _wake(stage, child.pid, random.choices([0.5, 3.0, random.uniform(12, 40)], [4, 3, 1])[0])
                stopped += time.monotonic()
            time.sleep(0.05)
        stage.figures.longest(f"longest {job} of a library writer, seconds", time.monotonic() - began - stopped)
        outcome = child.outcome()
    how = "killed" if outcome.killed else outcome.error or "done"
    if how != "done":
        stage.disruptions.moment()  # requests under way were lost with it
    stage.figures.count(f"library {job}: {how}")
    if not outcome.ours:
        stage.figures.violation(
            f"the {job} of a library writer ended in an error of another package: {outcome.message}"
        )
    return None if how != "done" else outcome.result


def _give_up(stage: Stage, child: Child, job: str) -> None:
    """Report what the child was waiting for, and kill it."""
    stage.figures.violation(f"the {job} of a library writer did not end within {_LIBRARY_SECONDS:g} s")
    child.print_stacks()
    with suppress(psycopg.Error), psycopg.connect(stage.database_url) as connection:
        for row in connection.execute(
            "SELECT pid, state, wait_event, pg_blocking_pids(pid), now() - xact_start, left(query, 80) "
            "FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
        ):
            stage.figures.note(f"at that moment: {row}")
    time.sleep(1)
    child.kill()


def _wake(stage: Stage, pid: int, seconds: float) -> None:
    """Let a stopped writer continue after a while."""
    stage.figures.count("stopped: library writer, for others to pass by")
    number = stage.disruptions.begin()
    stage.calm.wait(seconds)
    send(pid, signal.SIGCONT)
    stage.disruptions.end(number)


def backfill(stage: Stage, dagster: Dagster, pause: float) -> None:
    """Act as a user who launches backfills from the UI, until the storm is over."""
    random = stage.random("backfills")
    while not stage.calm.wait(random.uniform(pause / 2, pause)):
        stage.figures.count(f"backfills launched: {_launch(dagster, random)}")


def _launch(dagster: Dagster, random: Random) -> str:
    """Launch a backfill over some materialized partitions; returns Dagster's answer."""
    try:
        known = sorted(dagster.materialized())
        return dagster.backfill(random.sample(known, k=min(random.randint(1, 4), len(known)))) if known else "none"
    except OSError:
        return "not answered"
