"""Spans of batch jobs, by the semantic conventions of OpenTelemetry for messaging: a job is a batch of messages."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Literal

from opentelemetry.trace import SpanKind

from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.telemetry.spans import span

_SYSTEM = "openai"
_QUEUE = "batches"


@contextmanager
def batch_call(
    operation: Literal["send", "receive"], *, corpus: str, generation: str, texts: int
) -> Generator[Callable[[str], None]]:
    """Enclose the submission or the collection of one batch job.

    Args:
        operation: Whether the texts are sent or their vectors are received.
        corpus: Name of the corpus.
        generation: Name of the generation.
        texts: Number of texts.

    Yields:
        A function that adds the id that the API gave to the job. The id relates its submission to its collection.
    """
    attributes: dict[str, str | int] = {
        "messaging.system": _SYSTEM,
        "messaging.destination.name": _QUEUE,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.batch.message_count": texts,
    }
    kind = SpanKind.PRODUCER if operation == "send" else SpanKind.CONSUMER
    with scope(corpus=corpus, generation=generation), span(f"{operation} {_QUEUE}", kind, attributes) as started:
        yield partial(started.set_attribute, "messaging.message.id")
