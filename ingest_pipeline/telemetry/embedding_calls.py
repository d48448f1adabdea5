"""Spans and metrics of calls of an embedding model, by the semantic conventions of OpenTelemetry for generative AI."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import perf_counter
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from ingest_pipeline.telemetry import metrics
from ingest_pipeline.telemetry.spans import error_type, span
from ingest_pipeline.types import Usage

_OPERATION = "embeddings"


@contextmanager
def embedding_call(
    model: str, dimensions: int, endpoint: str, texts: int, usage: Callable[[], Usage]
) -> Generator[None]:
    """Enclose the embedding of one batch, its retries included.

    Args:
        model: Name of the model.
        dimensions: Width of the vectors.
        endpoint: Address of the API, or another name of the embedder.
        texts: Number of texts.
        usage: Returns what the batch has taken so far. It is called at the end.
    """
    parts = urlsplit(endpoint)
    names = {"operation": _OPERATION, "provider": "openai" if parts.hostname else "_OTHER", "model": model}
    start, failure = perf_counter(), dict[str, str]()
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.provider.name": names["provider"],
        "gen_ai.request.model": model,
        "gen_ai.embeddings.dimension.count": dimensions,
        "ingest_pipeline.texts": texts,
    }
    if parts.hostname:
        attributes |= {"server.address": parts.hostname, "server.port": parts.port or _default_port(parts.scheme)}
    with span(f"{_OPERATION} {model}", SpanKind.CLIENT, attributes) as started:
        try:
            yield
        except BaseException as error:
            failure = {"error": error_type(error)}
            raise
        finally:
            taken, seconds = usage(), perf_counter() - start
            started.set_attribute("gen_ai.usage.input_tokens", taken.tokens)
            started.set_attribute("ingest_pipeline.requests", taken.requests)
            started.set_attribute("ingest_pipeline.retries", taken.retries)
            metrics.CALL_DURATION.record(seconds, **names, **failure)
            metrics.CALL_TOKENS.record(taken.tokens, **names, type="input")
            metrics.STAGE_DURATION.record(seconds, stage="embed")


def _default_port(scheme: str) -> int:
    return 80 if scheme == "http" else 443
