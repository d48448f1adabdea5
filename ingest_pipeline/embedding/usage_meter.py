"""Counts what calls of an embedder take: billed tokens, requests and seconds, whether or not the answer is usable."""

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
    """Counts what one call of `EmbeddingClient.embed` takes, also if it fails: the API bills every answer."""

    tokens: int = 0
    """Tokens of all answers, unusable ones included."""
    requests: int = 0
    """Requests sent so far, retries included."""
    calls: int = 0
    """Requests without retries."""
    _began: float = field(default_factory=perf_counter)

    @property
    def retries(self) -> int:
        """Requests that were sent again after a temporary fault."""
        return max(0, self.requests - self.calls)

    @property
    def seconds(self) -> float:
        """Seconds since the meter was started."""
        return perf_counter() - self._began

    @property
    def usage(self) -> Usage:
        """The counts so far. The meter does not know how many texts were embedded."""
        return Usage(tokens=self.tokens, requests=self.requests, retries=self.retries, seconds=self.seconds)

    def restart(self) -> None:
        """Start counting seconds now, because waiting for a free slot does not count."""
        self._began = perf_counter()


_current: ContextVar[UsageMeter | None] = ContextVar("usage_meter", default=None)


@contextmanager
def metered(meter: UsageMeter) -> Generator[None]:
    """Count the requests and answers of the block, and of everything it awaits, with this meter."""
    token = _current.set(meter)
    try:
        yield
    finally:
        _current.reset(token)


def count_request() -> None:
    """Count a request that is about to be sent."""
    meter = _current.get()
    if meter is not None:
        meter.requests += 1


def count_answer(body: object) -> None:
    """Count the billed tokens of an answer, which may be any JSON value."""
    meter = _current.get()
    if meter is not None:
        meter.tokens += billed_tokens(body)


def count_broken_answer(content: bytes) -> None:
    """Count an answer that is not valid JSON. If it was truncated after its usage, the tokens are readable."""
    meter = _current.get()
    found = _USAGE.search(content)
    if meter is not None and found is not None:
        meter.tokens += int(found[1])


def billed_tokens(body: object) -> int:
    """The billed tokens that an answer reports, 0 if it reports none."""
    usage = cast("dict[str, object]", body).get("usage") if isinstance(body, dict) else None
    total = cast("dict[str, object]", usage).get("total_tokens") if isinstance(usage, dict) else None
    return total if type(total) is int and total > 0 else 0
