"""How many requests an API sees at once: fewer when it says that they are too many, slowly more when it does not.

Additive increase, multiplicative decrease, which is what lets many clients share what one server can bear without
knowing of each other (Chiu and Jain, 1989). Two rules are TCP's (Jacobson, 1988): of all complaints about requests that
were under way together only the first counts, and the limit grows by one for every round of as many answers as it lets
out. A third is that of TCP Vegas (Brakmo and Peterson, 1994): while answers take much longer than the quickest did, a
queue stands before the server, and more requests would only lengthen it. An API that never complains sees the greatest
number from the first request on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

_DECREASE = 0.5
_QUEUEING = 3.0
"""So many times the quickest answer: a queue, and not the difference between one request and another."""
_FORGETTING = 1.02
"""By so much the quickest answer is taken to be slower with every answer, so that it is one of late."""


@dataclass(slots=True)
class Turn:
    """One attempt at a request."""

    started: float
    refused: bool = False
    wait: float = 0.0

    def refuse(self, wait: float = 0.0) -> None:
        """Say that the API had too much to do.

        Args:
            wait: Seconds for which it wants to be left alone.
        """
        self.refused, self.wait = True, wait


class AdaptiveConcurrency:
    """A limit on what is under way at once, which adapts.

    Args:
        greatest: The limit while nobody complains.
        clock: Seconds, never going back.
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
        """How many may be under way now, one at least."""
        return int(self._limit)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[Turn]:
        """Wait for a turn, and for the end of a silence that the API asked for. An attempt that raises says nothing."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._under_way < self.limit)
            self._under_way += 1
        try:
            while (silence := self._silent_until - self._clock()) > 0:  # noqa: ASYNC110  a time is waited for, no event
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
