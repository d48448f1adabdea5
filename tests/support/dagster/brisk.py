"""Processes of Dagster that wait less, and open fewer connections, than those of a user. They do nothing else.

Half of the CPU of Dagster's daemon and code server goes into their connections, one for each statement. The daemon
waits for half a minute before it evaluates a sensor or a backfill again. No test depends on how long it waits.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from typing import Any

from dagster._daemon import controller, sensor

from tests.support.dagster.output import without_mirror
from tests.support.dagster.pooled_storage import kept_connections

BRISK = "BRISK_DAGSTER"
"""The variable by which a preloaded process makes itself brisk."""
_PAUSE_SECONDS = 5


def make_brisk() -> None:
    """Make this process brisk if the variable is set. It must be called before the process opens an instance."""
    if BRISK not in os.environ:
        return
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = _PAUSE_SECONDS
    is_under_interval = sensor.is_under_min_interval

    def is_too_early(state: Any, *arguments: Any) -> bool:
        elapsed = sensor.get_elapsed(state)
        return is_under_interval(state, *arguments) and elapsed is not None and elapsed < _PAUSE_SECONDS

    sensor.is_under_min_interval = is_too_early
    process = ExitStack()
    process.enter_context(without_mirror())
    process.enter_context(kept_connections(idle=1))  # a server has a hundred for all processes
    atexit.register(process.close)
