"""Runs a coroutine from code that does not await, whether or not an event loop runs in its thread already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")
_SECONDS_BETWEEN_LOOKS = 0.5


def is_running() -> bool:
    """Whether an event loop runs in this thread, as in a notebook or an async service."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return its result. It is cancelled if the caller is interrupted meanwhile.

    Where an event loop runs already, the coroutine gets a thread and a loop of its own, because loops cannot be nested.
    The loop of the caller is blocked until the coroutine has ended.
    """
    if is_running():
        return _run_in_thread(work)
    results: list[T] = []

    async def kept() -> None:
        # The result of the task itself would be formatted as a text when asyncio gives back its signal handler.
        results.append(await work)

    asyncio.run(kept())
    return results[0]


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    interrupted = threading.Event()

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio.run made one
        begun.append((asyncio.get_running_loop(), task))
        if interrupted.is_set():
            task.cancel()
        return await work

    with ThreadPoolExecutor(1, "event-loop") as thread:
        # The executor waits at its end only for a thread whose start was not interrupted.
        thread.submit(int).result()
        try:
            result = thread.submit(copy_context().run, asyncio.run, watched())
            # A signal that the system delivers to another thread does not wake this one.
            while not wait([result], _SECONDS_BETWEEN_LOOKS).done:
                pass
            return result.result()
        except BaseException:
            # Ctrl-C interrupts the caller's thread alone. The executor then waits until the coroutine has ended.
            interrupted.set()
            for loop, task in begun:
                with suppress(RuntimeError):  # the loop was closed in the meantime
                    loop.call_soon_threadsafe(task.cancel)
            raise
