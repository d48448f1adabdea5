"""The times at which a storm disrupted a process or a connection."""

from __future__ import annotations

import math
import threading
import time


class Disruptions:
    """Kills and cuts are moments; a stopped process is disrupted until it continues."""

    def __init__(self) -> None:
        self._spans: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def moment(self) -> None:
        """Record a disruption at this moment."""
        self.end(self.begin())

    def begin(self) -> int:
        """Record a disruption that begins now; returns a number for `end`."""
        with self._lock:
            number = len(self._spans)
            self._spans[number] = (time.monotonic(), math.inf)
        return number

    def end(self, number: int) -> None:
        with self._lock:
            self._spans[number] = (self._spans[number][0], time.monotonic())

    def touch(self, began: float, ended: float) -> bool:
        """Whether a disruption overlaps with a period of time."""
        with self._lock:
            return any(first <= ended and last >= began for first, last in self._spans.values())
