"""Disrupts processes and connections: SIGKILL, SIGSTOP, restarts of Postgres, cut connections, ended backends."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from tests.support.servers.tcp_proxy import Direction, Match
from tests.support.storm.dagster import Dagster
from tests.support.storm.processes import run_workers, send
from tests.support.storm.stage import Stage
from tests.support.storm.users.writers import Victims

_KINDS = ["run worker", "run worker", "command line", "library writer", "decision", "erasure", "listener"]
_WEIGHTS = {"kill": 5.0, "stop": 4.0, "cut": 3.0, "end backends": 1.0, "restart": 1.0, "reset Dagster": 0.3}
# Longer than a writer may be silent before others take it for dead.
_LONGEST_STOP = 45.0
_COMMIT_SECONDS = 6.0


class Killer:
    """Causes a disruption every few seconds.

    Args:
        stage: The stage of the storm.
        victims: Writers that may be disrupted.
        dagster: Dagster, whose run workers may be disrupted; None if there is none.
        pause: Maximum number of seconds between two disruptions.
    """

    def __init__(self, stage: Stage, victims: Victims, dagster: Dagster | None, pause: float) -> None:
        self._stage, self._victims, self._dagster, self._pause = stage, victims, dagster, pause
        self._random = stage.random("killer")
        self._kinds = _KINDS if dagster else [kind for kind in _KINDS if kind != "run worker"]
        self._proxies = list(stage.proxies) if dagster else ["writers"]
        self._stopped: list[threading.Thread] = []

    def run(self) -> None:
        """Cause disruptions until the storm is over; then let all stopped processes continue."""
        blows: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "stop": self._stop,
            "cut": self._cut,
            "end backends": self._end_backends,
            "restart": self._restart,
            "reset Dagster": self._reset_dagster,
        }
        while not self._stage.calm.wait(self._random.uniform(self._pause / 4, self._pause)):
            blows[self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]]()
        for thread in self._stopped:
            thread.join()

    def _victim(self) -> tuple[str, int] | None:
        kind = self._random.choice(self._kinds)
        if kind == "run worker":
            pids = run_workers(self._dagster.pid) if self._dagster else []
        else:
            pids = self._victims.of(kind)
        return (kind, self._random.choice(pids)) if pids else None

    def _kill(self) -> None:
        victim = self._victim()
        if victim is None:
            self._cut()
            return
        number = self._stage.disruptions.begin()
        if send(victim[1], signal.SIGKILL):
            self._stage.figures.count(f"killed: {victim[0]}")
        self._stage.disruptions.end(number)

    def _stop(self) -> None:
        victim = self._victim()
        if victim is None or not send(victim[1], signal.SIGSTOP):
            self._cut()
            return
        self._stage.figures.count(f"stopped: {victim[0]}")
        seconds = self._random.choice([0.5, 2.0, 8.0, self._random.uniform(20, _LONGEST_STOP)])
        number = self._stage.disruptions.begin()

        def go_on() -> None:
            self._stage.calm.wait(seconds)
            send(victim[1], signal.SIGCONT)
            self._stage.disruptions.end(number)

        thread = threading.Thread(target=go_on)
        thread.start()
        self._stopped.append(thread)

    def _cut(self) -> None:
        name = self._random.choice(self._proxies)
        proxy = self._stage.proxies[name]
        after = self._random.choice([None, False, True])
        number = self._stage.disruptions.begin()
        if after is None:
            proxy.cut()
            self._stage.figures.count(f"connections cut: of {name}")
        elif proxy.cut_when(commit_of_a_publication(), after=after).wait(_COMMIT_SECONDS):
            self._stage.figures.count(
                f"connections cut: of {name}, {'after' if after else 'before'} a publication's COMMIT"
            )
        else:
            proxy.forward()
        self._stage.disruptions.end(number)

    def _end_backends(self) -> None:
        self._stage.disruptions.moment()
        with suppress(psycopg.Error), psycopg.connect(self._stage.database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND usename = current_user "
                "AND pid <> pg_backend_pid() AND random() < 0.5"
            )
            self._stage.figures.count("backends ended: half of all")

    def _restart(self) -> None:
        number = self._stage.disruptions.begin()
        began = time.monotonic()
        self._stage.postgres.restart(immediate=True)
        self._stage.disruptions.end(number)
        self._stage.figures.count("Postgres restarts")
        self._stage.figures.count("Postgres restarts: seconds down", round(time.monotonic() - began))

    def _reset_dagster(self) -> None:
        if self._dagster is None:
            return
        number = self._stage.disruptions.begin()
        self._dagster.die_and_start_again()
        self._stage.reaper.spare(self._dagster.pid)
        self._stage.disruptions.end(number)
        self._stage.figures.count("killed: web server, daemon, code server and run workers at once")


def commit_of_a_publication() -> Match:
    """Match the first COMMIT after head was moved, the moment at which the two stores differ most."""
    moved = False

    def match(block: bytes, direction: Direction) -> bool:
        nonlocal moved
        moved = moved or (direction == "to_server" and b"SET head_version" in block)
        return moved and direction == "to_server" and b"COMMIT" in block

    return match
