"""Whether the event queue is read, and by what: times that its readers keep in Dagster's own tables.

The sensor of the queue rests while `ingest-pipeline listen` reads it, and the source is listed rarely while anything
does. If the readers die, both notice it by the age of the times.
"""

from __future__ import annotations

from time import time

import dagster as dg

from ingest_pipeline.resources.names import DagsterNames

# A listener reports every 20 seconds.
_LISTENER_SECONDS = 90
# A sensor reads every 5 seconds, unless runs are in progress or the daemon is busy.
_READER_SECONDS = 600


def report_read(instance: dg.DagsterInstance, names: DagsterNames, *, by_listener: bool) -> None:
    """Record that the queue was read now.

    Args:
        instance: Dagster's instance.
        names: Names of the corpus in Dagster.
        by_listener: Whether `ingest-pipeline listen` read it, and not the sensor.
    """
    keys = [_read(names), *([_listened(names)] if by_listener else [])]
    instance.daemon_cursor_storage.set_cursor_values({key: str(time()) for key in keys})


def report_end(instance: dg.DagsterInstance, names: DagsterNames) -> None:
    """Record that the listener ends, so that the sensor reads the queue at once."""
    instance.daemon_cursor_storage.set_cursor_values({_listened(names): "0"})


def is_listened(instance: dg.DagsterInstance, names: DagsterNames) -> bool:
    """Whether `ingest-pipeline listen` reads the queue."""
    return _is_recent(instance, _listened(names), _LISTENER_SECONDS)


def is_read(instance: dg.DagsterInstance, names: DagsterNames) -> bool:
    """Whether anything reads the queue."""
    return _is_recent(instance, _read(names), _READER_SECONDS)


def _is_recent(instance: dg.DagsterInstance, key: str, seconds: float) -> bool:
    found = instance.daemon_cursor_storage.get_cursor_values({key}).get(key)
    return found is not None and time() - float(found) < seconds


def _read(names: DagsterNames) -> str:
    return f"ingest_pipeline/{names.qualified}/events_read_at"


def _listened(names: DagsterNames) -> str:
    return f"ingest_pipeline/{names.qualified}/events_listened_at"
