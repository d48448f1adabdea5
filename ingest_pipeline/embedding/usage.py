"""What calls of an embeddings API took: tokens as the API bills them, requests and seconds, usable answer or not."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

from ingest_pipeline.types import Usage

_USAGE = re.compile(rb'"total_tokens"\s*:\s*(\d{1,15})(?=\D)')


@dataclass(slots=True)
class UsageMeter:
    """Counts what one call of `Embedder.embed` takes, also if the call fails: the API bills what it answers."""

    tokens: int = 0
    """Of all answers, those that cannot be used included."""
    requests: int = 0
    """Sent so far, retries included."""
    calls: int = 0
    """Requests that were not retries of others."""
    _began: float = field(default_factory=perf_counter)

    @property
    def retries(self) -> int:
        """Requests that were sent again after a fault that may pass."""
        return max(0, self.requests - self.calls)

    @property
    def seconds(self) -> float:
        """Since the meter was started."""
        return perf_counter() - self._began

    @property
    def usage(self) -> Usage:
        """What was counted so far. Which texts were embedded is not known here."""
        return Usage(tokens=self.tokens, requests=self.requests, retries=self.retries, seconds=self.seconds)

    def restart(self) -> None:
        """Begin to count seconds now: waiting for a free slot is not counted."""
        self._began = perf_counter()


_current: ContextVar[UsageMeter | None] = ContextVar("usage_meter", default=None)


@contextmanager
def metered(meter: UsageMeter) -> Generator[None]:
    """Let requests and answers of the block, and of what it awaits, count for the meter."""
    token = _current.set(meter)
    try:
        yield
    finally:
        _current.reset(token)


def count_request() -> None:
    """A request is about to be sent."""
    meter = _current.get()
    if meter is not None:
        meter.requests += 1


def count_answer(body: object) -> None:
    """An answer came, and says what it is billed; it may be anything that JSON can hold."""
    meter = _current.get()
    if meter is not None:
        meter.tokens += billed_tokens(body)


def count_broken_answer(content: bytes) -> None:
    """An answer came that is not JSON. If it was cut off behind its usage, it was billed and says so."""
    meter = _current.get()
    found = _USAGE.search(content)
    if meter is not None and found is not None:
        meter.tokens += int(found[1])


def billed_tokens(body: object) -> int:
    """The tokens that an answer says it is billed; 0 if it does not say."""
    usage = cast("dict[str, object]", body).get("usage") if isinstance(body, dict) else None
    total = cast("dict[str, object]", usage).get("total_tokens") if isinstance(usage, dict) else None
    return total if type(total) is int and total > 0 else 0
