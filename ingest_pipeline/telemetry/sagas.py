"""The span of a saga, and its names in the logs and metrics of its work."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ingest_pipeline.telemetry import metrics
from ingest_pipeline.telemetry.scope import scope
from ingest_pipeline.telemetry.spans import mark_failed, span
from ingest_pipeline.types import Price


@dataclass(slots=True)
class ObservedSaga:
    """A saga as its span, logs and metrics name it."""

    kind: str
    corpus: str
    generation: str
    saga: str
    run: str
    price: Price | None
    state: str = "failed"
    """The state in which the saga ended. It is `failed` unless the saga was published or completed."""

    @contextmanager
    def block(self) -> Generator[None]:
        """Enclose the work of the saga in a span, whose status says whether the saga published or completed."""
        names = {"corpus": self.corpus, "generation": self.generation, "saga": self.saga, "price": self.price}
        if self.run:
            names["run"] = self.run
        kind = {"ingest_pipeline.saga.kind": self.kind}
        with scope(**names), span(f"saga {self.kind}", attributes=kind) as started:
            try:
                yield
                if self.state == "failed":
                    mark_failed(started, "failed")
            finally:
                started.set_attribute("ingest_pipeline.saga.state", self.state)
                metrics.SAGAS.add(1, kind=self.kind, state=self.state)
