"""The command `listen`."""

from __future__ import annotations

import signal
from datetime import datetime

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import command
from ingest_pipeline.cli._terminal import echo
from ingest_pipeline.errors import ConfigurationError


@command
def listen() -> None:
    """Ingest changes in S3 as soon as the event queue has a notice of them, until interrupted.

    Changes without a notice are found by the source sensor, or by `ingest`. Several processes may listen at once.
    """
    settings = _settings.settings()
    if not settings.events:
        raise ConfigurationError(
            "There is no queue to listen to", "Set INGEST_EVENTS to the queue with the notifications of the source."
        )
    from ingest_pipeline.cli._listener import Listener  # noqa: PLC0415  imports Dagster

    with _session.postgres(settings) as running:
        listener = Listener(running, _print)
        # As Ctrl-C. While a run is in progress, Dagster handles both.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            listener.listen()
        except KeyboardInterrupt:
            echo("Stopped. Messages that were not finished appear in the queue again within a minute.", err=True)
        finally:
            signal.signal(signal.SIGTERM, before)
            listener.stop()


def _print(line: str, is_problem: bool) -> None:  # noqa: FBT001  a callback
    prefix = "Warning: " if is_problem else ""
    echo(f"{datetime.now().astimezone():%H:%M:%S} {prefix}{line}", err=is_problem)
