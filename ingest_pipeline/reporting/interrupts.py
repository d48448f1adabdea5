"""Ends a run that is interrupted while it waits for several tasks."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from dagster._core.errors import DagsterExecutionInterruptedError

from ingest_pipeline import event_loop

T = TypeVar("T")


def run_interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, or cancel it when the process is interrupted, as by Ctrl-C or Dagster's UI.

    Dagster's own handler raises in the middle of whatever the event loop does at the moment. If that is the transport
    of a connection, the transport takes the interrupt for a broken connection, and the run continues.

    Raises:
        DagsterExecutionInterruptedError: The coroutine was cancelled. Dagster ends the run on this error.
    """
    if event_loop.is_running() or threading.current_thread() is not threading.main_thread():
        return event_loop.run_blocking(work)  # only a loop in the main thread may handle signals

    interrupted = False

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio.run made one

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
        return await work

    before = signal.getsignal(signal.SIGINT)
    try:
        return asyncio.run(watched())
    except BaseException as error:
        if interrupted:
            raise DagsterExecutionInterruptedError from error
        raise
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
