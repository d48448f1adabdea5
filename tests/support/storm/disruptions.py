"""When a storm hurt somebody: from which moment to which."""

from __future__ import annotations

import math
import threading
import time


class Disruptions:
    """Kills and cuts are moments; a stopped process is hurt until it goes on."""

    def __init__(self) -> None:
        self._spans: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def moment(self) -> None:
        """Something was hurt just now."""
        self.end(self.begin())

    def begin(self) -> int:
        """Something is hurt from now on; returns a number for `end`."""
        with self._lock:
            number = len(self._spans)
            self._spans[number] = (time.monotonic(), math.inf)
        return number

    def end(self, number: int) -> None:
        with self._lock:
            self._spans[number] = (self._spans[number][0], time.monotonic())

    def touch(self, began: float, ended: float) -> bool:
        """Whether something was hurt at some moment of a time."""
        with self._lock:
            return any(first <= ended and last >= began for first, last in self._spans.values())
