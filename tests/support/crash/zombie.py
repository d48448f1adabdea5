"""A writer that was stopped, lost its lock without noticing, and continues after other writers have published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from tests.support.crash.crash import Child, Outcome, Place
from tools import figures

_NAME = "zombie"


def named(database_url: str) -> str:
    """The url under which the zombie connects, so that its backends are found."""
    return f"{database_url}?application_name={_NAME}"


class Zombie:
    """A child that stops at a place and whose backends Postgres then ends, which frees its lock.

    Args:
        database_url: Url through which the backends are ended.
        job: The job of the child, with its arguments. The url in them must be `named`.
        place: The place at which the child stops.
    """

    def __init__(self, database_url: str, job: Callable[..., Any], *arguments: object, place: Place) -> None:
        self._url = database_url
        self._child = Child(job, *arguments, stop_at=place)

    def die(self) -> None:
        """Wait until the child stops, and end its backends."""
        assert self._child.wait_until_stopped(), f"the zombie never reached its place: {self._child.outcome()}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = %s",
                (_NAME,),
            )

    def wake(self) -> Outcome:
        """Let the child continue to its end."""
        self.resume()
        return self.outcome()

    def resume(self) -> None:
        """Let the child continue while others are active."""
        figures.count("zombies woken (SIGSTOP, backend ended, SIGCONT)")
        self._child.resume()

    def outcome(self) -> Outcome:
        """Wait until the child ends; returns how it ended."""
        return self._child.outcome()

    def kill(self) -> None:
        """Kill the child."""
        self._child.kill()
        assert self._child.outcome().killed
