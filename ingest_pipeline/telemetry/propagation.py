"""Lets the spans of another process of a run continue those of this one."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from opentelemetry import context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()


def carried() -> Mapping[str, str]:
    """The current span, in the form in which HTTP headers carry it. Empty without an SDK."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier


@contextmanager
def continued(carrier: Mapping[str, str]) -> Generator[None]:
    """Make the spans of the block children of the span that another process carried over."""
    token = context.attach(_propagator.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
