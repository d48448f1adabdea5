"""Limits how many requests an API gets at once: fewer after it refuses some as too many, then slowly more again.

Additive increase and multiplicative decrease let many clients share the capacity of one server without knowing of each
other (Chiu and Jain, 1989). Two rules are from TCP (Jacobson, 1988): only the first of several refusals of concurrent
requests counts, and the limit grows by one after as many answers as the limit allows at once. A third rule is from TCP
Vegas (Brakmo and Peterson, 1994): while answers take much longer than the quickest one did, the server has a queue, and
more requests would only make it longer. An API that never refuses gets the maximum from the first request on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

_DECREASE = 0.5
_QUEUEING = 3.0
"""An answer that takes so many times longer than the quickest one has waited in a queue."""
_FORGETTING = 1.02
"""With every answer the quickest time is raised by this factor, so that old measurements are forgotten."""


@dataclass(slots=True)
class Turn:
    """One attempt at a request."""

    started: float
    refused: bool = False
    wait: float = 0.0

    def refuse(self, wait: float = 0.0) -> None:
        """Report that the API refused the request because of its load.

        Args:
            wait: Seconds to wait, as the API requests.
        """
        self.refused, self.wait = True, wait


class AdaptiveConcurrency:
    """A limit on concurrent requests that adapts to the API.

    Args:
        greatest: The limit while the API refuses nothing.
        clock: Monotonic seconds.
    """

    def __init__(self, greatest: int, clock: Callable[[], float] = monotonic) -> None:
        self.greatest = greatest
        self._limit = float(greatest)
        self._clock = clock
        self._under_way = 0
        self._changed = asyncio.Condition()
        self._decreased = float("-inf")
        self._silent_until = float("-inf")
        self._quickest = float("inf")

    @property
    def limit(self) -> int:
        """How many requests may be in progress now, at least one."""
        return int(self._limit)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[Turn]:
        """Wait for a turn and for the pause that the API requested. A failed attempt does not change the limit."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
        try:
            while (silence := self._silent_until - self._clock()) > 0:  # noqa: ASYNC110  waits for a time, not for an event
                await asyncio.sleep(silence)
            turn = Turn(self._clock())
            try:
                yield turn
            finally:
                if turn.refused:
                    self._slow_down(turn)
            if not turn.refused:
                self._speed_up(turn)
        finally:
            self._under_way -= 1
            async with self._changed:
                self._changed.notify_all()

    def _slow_down(self, turn: Turn) -> None:
        now = self._clock()
        self._silent_until = max(self._silent_until, now + turn.wait)
        if turn.started >= self._decreased:
            self._decreased = now
            self._limit = max(1.0, self._limit * _DECREASE)

    def _speed_up(self, turn: Turn) -> None:
        seconds = self._clock() - turn.started
        self._quickest = min(seconds, self._quickest * _FORGETTING)
        if seconds <= _QUEUEING * self._quickest:
            self._limit = min(self.greatest, self._limit + 1 / self._limit)
