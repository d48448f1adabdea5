"""A coroutine that is run from a script, from a coroutine, from a notebook's cell, and interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from ingest_pipeline.event_loop import is_running, run_blocking
from ingest_pipeline.reporting.interrupts import run_interruptibly

_request: ContextVar[str] = ContextVar("request", default="none")


async def answer() -> tuple[int, str]:
    await asyncio.sleep(0)
    return 42, _request.get()


def in_a_notebook(cell: Callable[[], object]) -> list[object]:
    """The result of a cell that a notebook's kernel runs: plain code, called by a loop that runs for ever."""
    loop, results = asyncio.new_event_loop(), list[object]()

    def run_cell() -> None:
        try:
            results.append(cell())
        except RuntimeError as error:
            results.append(error)
        loop.stop()

    loop.call_soon(run_cell)
    loop.run_forever()
    loop.close()
    return results


def test_a_script_runs_it_in_its_own_thread() -> None:
    assert not is_running()

    async def thread() -> threading.Thread:
        return threading.current_thread()

    assert run_blocking(thread()) is threading.main_thread()


def test_a_running_loop_is_no_obstacle_and_the_context_is_kept() -> None:
    async def service() -> tuple[int, str]:
        _request.set("a request")
        return run_blocking(answer())

    assert asyncio.run(service()) == (42, "a request")
    assert in_a_notebook(lambda: run_blocking(answer())) == [(42, "none")]


def test_a_dagster_step_runs_in_a_notebook_too() -> None:
    assert in_a_notebook(lambda: run_interruptibly(answer())) == [(42, "none")]


def test_its_error_is_the_callers() -> None:
    async def fail() -> None:
        raise KeyError("cause")

    async def service() -> None:
        run_blocking(fail())

    with pytest.raises(KeyError, match="cause"):
        asyncio.run(service())


def test_an_interrupt_of_the_caller_cancels_the_work() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C does to a notebook: its main thread is interrupted
            await asyncio.sleep(3600)
        finally:
            ended.append("work")

    def cell() -> None:
        with pytest.raises(KeyboardInterrupt):
            run_blocking(work())
        ended.append("cell")

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        in_a_notebook(cell)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended == ["work", "cell"]


class Large:
    """A result that takes long to format, as the summary of thousands of documents does."""

    formatted = 0

    def __repr__(self) -> str:
        self.formatted += 1
        return "large"


def test_the_result_is_not_formatted() -> None:
    async def work() -> Large:
        return Large()

    assert run_blocking(work()).formatted == 0
