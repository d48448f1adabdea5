"""A writer that was stopped, lost its lock without knowing, and wakes up after others went on."""

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
        database_url: Of the corpus, to end the backends through.
        job: What it does, with its arguments; its own url must be `named`.
        place: Where it stops.
    """

    def __init__(self, database_url: str, job: Callable[..., Any], *arguments: object, place: Place) -> None:
        self._url = database_url
        self._child = Child(job, *arguments, stop_at=place)

    def die(self) -> None:
        """Stop, and lose the backends."""
        assert self._child.wait_until_stopped(), f"it never came to its place: {self._child.outcome()}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = %s",
                (_NAME,),
            )

    def wake(self) -> Outcome:
        """Go on from there, to the end."""
        self.resume()
        return self.outcome()

    def resume(self) -> None:
        """Go on, while others do too."""
        figures.count("zombies woken (SIGSTOP, backend ended, SIGCONT)")
        self._child.resume()

    def outcome(self) -> Outcome:
        """Wait for the end."""
        return self._child.outcome()

    def kill(self) -> None:
        """Make it a real death."""
        self._child.kill()
        assert self._child.outcome().killed
