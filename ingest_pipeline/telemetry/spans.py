"""Spans of the engine's work. A span that raises ends with status ERROR and the class of the error as ``error.type``.

Error messages may name documents, so no span records them. A faulty processor of the user's SDK is logged, and does not
disturb the work.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ingest_pipeline.telemetry import metrics
from ingest_pipeline.telemetry.scope import current

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

_tracer = trace.get_tracer("ingest_pipeline")
_log = logging.getLogger(__name__)

POSTGRES: Attributes = {"db.system.name": "postgresql"}


@contextmanager
def span(name: str, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes | None = None) -> Generator[Span]:
    """Enclose some work in a span with the names of the current scope.

    Args:
        name: Name of the span, of few different values.
        kind: The kind of the span.
        attributes: What is known at its beginning.
    """
    started = _start(name, kind, {**current().attributes, **(attributes or {})})
    with trace.use_span(started, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            yield started
        except BaseException as error:
            mark_failed(started, error_type(error))
            raise
        finally:
            _end(started)


@contextmanager
def stage(
    stage: str, name: str | None = None, kind: SpanKind = SpanKind.INTERNAL, attributes: Attributes | None = None
) -> Generator[Span]:
    """Enclose one piece of a stage's work in a span, and count its seconds.

    Args:
        stage: The stage: one of those of `metrics.STAGE_DURATION`.
        name: Name of the span. Default: that of the stage.
        kind: The kind of the span.
        attributes: What is known at its beginning.
    """
    start = perf_counter()
    try:
        with span(name or stage, kind, attributes) as started:
            yield started
    finally:
        metrics.STAGE_DURATION.record(perf_counter() - start, stage=stage)


def error_type(error: BaseException) -> str:
    """The class of an error, or of the first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def mark_failed(started: Span, reason: str) -> None:
    """Give a span the status ERROR.

    Args:
        started: The span.
        reason: Why it failed, by a name of few different values.
    """
    started.set_attribute("error.type", reason)
    started.set_status(Status(StatusCode.ERROR, reason))


def _start(name: str, kind: SpanKind, attributes: Attributes) -> Span:
    try:
        return _tracer.start_span(name, kind=kind, attributes=attributes)
    except Exception:  # noqa: BLE001  the SDK and its processors are the user's
        _log.exception("A span processor failed; the work continues without the span")
        return trace.INVALID_SPAN


def _end(started: Span) -> None:
    try:
        started.end()
    except Exception:  # noqa: BLE001  the SDK and its processors are the user's
        _log.exception("A span processor failed; the work continues")
