"""OpenTelemetry's SDK with its exporters in memory, for the engine of this process and for one test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ingest_pipeline.telemetry import metrics, spans


@dataclass(frozen=True, slots=True)
class Observed:
    """What the engine exported since the test began."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    provider: TracerProvider

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that ended, or those of one name, in the order of their beginning."""
        found = [span for span in self.exporter.get_finished_spans() if name in (None, span.name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def span(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (found,) = self.spans(name)
        return found

    def parent(self, span: ReadableSpan) -> str | None:
        """The name of a span's parent."""
        names = {one.context.span_id: one.name for one in self.spans() if one.context is not None}
        return None if span.parent is None else names[span.parent.span_id]

    def points(self, name: str) -> list[tuple[Mapping[str, Any], Any]]:
        """The attributes and the value of each point of a metric. The value of a histogram is its sum."""
        data = self.reader.get_metrics_data()
        found: list[tuple[Mapping[str, Any], Any]] = []
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found += [(dict(point.attributes or {}), _value(point)) for point in metric.data.data_points]
        return found

    def counts(self, name: str, attribute: str) -> dict[Any, Any]:
        """The values of a metric by one attribute."""
        found: dict[Any, Any] = {}
        for attributes, value in self.points(name):
            found[attributes[attribute]] = found.get(attributes[attribute], 0) + value
        return found

    def everything(self) -> str:
        """All spans and metrics as text."""
        data = self.reader.get_metrics_data()
        described = [span.to_json() for span in self.spans()]
        return "\n".join([*described, json.dumps(json.loads(data.to_json())) if data is not None else ""])


def _value(point: Any) -> Any:
    return point.value if isinstance(point, NumberDataPoint) else point.sum


def observe(monkeypatch: pytest.MonkeyPatch, processors: Sequence[SpanProcessor] = ()) -> Observed:
    """Let the engine use an SDK of this test alone: OpenTelemetry's own one can be set only once in a process."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    for processor in (*processors, SimpleSpanProcessor(exporter)):
        provider.add_span_processor(processor)
    meter = MeterProvider([reader]).get_meter("ingest_pipeline")
    monkeypatch.setattr(spans, "_tracer", provider.get_tracer("ingest_pipeline"))
    for declared in metrics._declared:  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(declared, "instrument", declared.create(meter))
    return Observed(exporter, reader, provider)
