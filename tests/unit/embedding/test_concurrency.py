"""The limit on requests at once: halved by a complaint, restored by answers, untouched while nobody complains."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ingest_pipeline.embedding._concurrency import AdaptiveConcurrency


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def answered(pace: AdaptiveConcurrency, clock: Clock, seconds: float = 1.0, times: int = 1) -> None:
    for _ in range(times):
        async with pace.turn():
            clock.now += seconds


async def refused(pace: AdaptiveConcurrency, clock: Clock, wait: float = 0.0) -> None:
    async with pace.turn() as turn:
        clock.now += 1
        turn.refuse(wait)


def run(work: Callable[[AdaptiveConcurrency, Clock], Awaitable[None]], greatest: int = 16) -> None:
    clock = Clock()
    asyncio.run(_awaited(work, AdaptiveConcurrency(greatest, clock), clock))


async def _awaited(
    work: Callable[[AdaptiveConcurrency, Clock], Awaitable[None]], pace: AdaptiveConcurrency, clock: Clock
) -> None:
    await work(pace, clock)


def test_the_limit_is_the_maximum_without_refusals() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        async def hold() -> None:
            async with pace.turn():
                inside.append(1)
                await everybody.wait()

        inside: list[int] = []
        everybody = asyncio.Event()
        tasks = [asyncio.create_task(hold()) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert len(inside) == 16
        everybody.set()
        await asyncio.gather(*tasks)
        assert len(inside) == 20
        assert pace.limit == 16

    run(work)


def test_a_refusal_halves_the_limit_down_to_one_request() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        limits: list[int] = []
        for _ in range(6):
            await refused(pace, clock)
            limits.append(pace.limit)
        assert limits == [8, 4, 2, 1, 1, 1]

    run(work)


def test_refusals_of_concurrent_requests_count_once() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        async def refuse() -> None:
            async with pace.turn() as turn:
                await all_out.wait()
                turn.refuse()

        all_out = asyncio.Event()
        tasks = [asyncio.create_task(refuse()) for _ in range(16)]
        await asyncio.sleep(0.01)
        clock.now += 1
        all_out.set()
        await asyncio.gather(*tasks)
        assert pace.limit == 8

    run(work)


def test_answers_raise_the_limit_by_one_a_round_up_to_the_maximum() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        await refused(pace, clock)
        await answered(pace, clock, times=8)
        assert pace.limit == 8
        await answered(pace, clock, times=2)
        assert pace.limit == 9
        await answered(pace, clock, times=1000)
        assert pace.limit == 16

    run(work)


def test_the_limit_does_not_grow_while_answers_queue_up() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        await answered(pace, clock, seconds=1)
        await refused(pace, clock)
        await answered(pace, clock, seconds=30, times=20)
        assert pace.limit == 8
        await answered(pace, clock, seconds=1, times=20)
        assert pace.limit == 10

    run(work)


def test_the_limit_adapts_to_an_api_that_became_slow() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        await answered(pace, clock, seconds=1)
        await refused(pace, clock)
        await answered(pace, clock, seconds=10, times=500)
        assert pace.limit == 16

    run(work)


def test_no_request_is_sent_before_the_requested_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.now += seconds

        monkeypatch.setattr(asyncio, "sleep", sleep)
        await refused(pace, clock, wait=5)
        await answered(pace, clock)
        await answered(pace, clock)

    run(work)
    assert slept == [5]


def test_a_failed_attempt_releases_its_slot() -> None:
    async def work(pace: AdaptiveConcurrency, clock: Clock) -> None:
        for _ in range(3):
            with pytest.raises(KeyError):
                async with pace.turn():
                    raise KeyError
        await answered(pace, clock)
        assert pace.limit == 1

    run(work, greatest=1)
