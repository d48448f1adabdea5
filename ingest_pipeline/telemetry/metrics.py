"""The instruments of the engine: counters and histograms that a run exports through the SDK of the user.

These measure the work of runs. The state of a corpus is in the catalog, and `ingest-pipeline metrics` serves it. The
attributes have few different values: names of corpora, stages, outcomes and models, and never keys of documents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from opentelemetry import metrics
from opentelemetry.metrics import Counter as CounterApi
from opentelemetry.metrics import Histogram as HistogramApi
from opentelemetry.metrics import Meter

from ingest_pipeline.telemetry.scope import current
from ingest_pipeline.types import Usage

T = TypeVar("T")
_meter = metrics.get_meter("ingest_pipeline")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# The boundaries that OpenTelemetry's semantic conventions recommend.
_CALL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_CALL_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_LAG_SECONDS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0)
CORPUS = "ingest_pipeline.corpus"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the reference shows of an instrument."""

    name: str
    kind: str
    unit: str
    description: str
    attributes: Sequence[str]
    """Names of the attributes besides that of the corpus."""


class _Declared(Generic[T]):
    """An instrument whose measurements carry the corpus of the current scope and the declared attributes."""

    def __init__(self, instrument: Instrument, create: Callable[[Meter], T], attributes: Mapping[str, str]) -> None:
        self.declaration = instrument
        self.create = create
        """Creates the instrument of the API."""
        self.instrument = create(_meter)
        self._attributes = attributes
        """Attribute by the name of the argument that sets it."""
        _declared.append(self)

    def labels(self, values: Mapping[str, str]) -> dict[str, str]:
        """The attributes of a measurement."""
        return {CORPUS: current().corpus, **{self._attributes[name]: value for name, value in values.items()}}


_declared: list[_Declared[Any]] = []


def declared() -> Sequence[Instrument]:
    """All instruments, in the order of their declaration."""
    return [one.declaration for one in _declared]


class Counter(_Declared[CounterApi]):
    """A sum that only grows."""

    def __init__(self, name: str, unit: str, description: str, **attributes: str) -> None:
        declaration = Instrument(name, "counter", unit, description, tuple(attributes.values()))
        super().__init__(declaration, lambda meter: meter.create_counter(name, unit, description), attributes)

    def add(self, amount: float, **values: str) -> None:
        """Add an amount, unless it is zero."""
        if amount:
            self.instrument.add(amount, self.labels(values))


class Histogram(_Declared[HistogramApi]):
    """A distribution of values."""

    def __init__(self, name: str, unit: str, description: str, buckets: Sequence[float], **attributes: str) -> None:
        declaration = Instrument(name, "histogram", unit, description, tuple(attributes.values()))

        def create(meter: Meter) -> HistogramApi:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=buckets)

        super().__init__(declaration, create, attributes)

    def record(self, value: float, **values: str) -> None:
        """Record one value."""
        self.instrument.record(value, self.labels(values))


DOCUMENTS = Counter(
    "ingest_pipeline.documents",
    "{document}",
    "Documents by what became of them: published, removed, unchanged, failed, unreadable, too_recent or on_hold.",
    outcome="ingest_pipeline.outcome",
)
CHUNKS = Counter(
    "ingest_pipeline.chunks",
    "{chunk}",
    "Published chunks by where their vectors came from: embedded or cached.",
    vectors="ingest_pipeline.vectors",
)
SAGAS = Counter(
    "ingest_pipeline.sagas",
    "{saga}",
    "Sagas that ended, by kind and by state: published, completed, failed, compensated or abandoned.",
    kind="ingest_pipeline.saga.kind",
    state="ingest_pipeline.saga.state",
)
TOKENS = Counter("ingest_pipeline.tokens", "{token}", "Billed tokens of documents, those of unusable answers included.")
COST = Counter(
    "ingest_pipeline.cost",
    "{currency}",
    "Cost of the billed tokens at the configured price. Without a price there is no cost.",
    currency="ingest_pipeline.currency",
)
REQUESTS = Counter("ingest_pipeline.requests", "{request}", "Requests to the embedding API, retries included.")
RETRIES = Counter("ingest_pipeline.retries", "{request}", "Requests that were sent again after a temporary fault.")
PUBLISH_RETRIES = Counter(
    "ingest_pipeline.publish.retries", "{attempt}", "Publications that began again because of another writer."
)
STAGE_DURATION = Histogram(
    "ingest_pipeline.stage.duration",
    "s",
    "Seconds of work: read and chunk for each document, lookup and embed for each batch, write for each data file, "
    "publish for each publication.",
    _SECONDS,
    stage="ingest_pipeline.stage",
)
LAG = Histogram(
    "ingest_pipeline.lag",
    "s",
    "Seconds from the modification of a document to the publication that shows it.",
    _LAG_SECONDS,
)
CALL_DURATION = Histogram(
    "gen_ai.client.operation.duration",
    "s",
    "Seconds of one embedding batch, its retries included.",
    _CALL_SECONDS,
    operation="gen_ai.operation.name",
    provider="gen_ai.provider.name",
    model="gen_ai.request.model",
    error="error.type",
)
CALL_TOKENS = Histogram(
    "gen_ai.client.token.usage",
    "{token}",
    "Billed tokens of one embedding batch.",
    _CALL_TOKENS,
    operation="gen_ai.operation.name",
    provider="gen_ai.provider.name",
    model="gen_ai.request.model",
    type="gen_ai.token.type",
)


def count_usage(usage: Usage) -> None:
    """Count the tokens, cost and requests of some answers, usable or not. The price is that of the current scope."""
    TOKENS.add(usage.tokens)
    REQUESTS.add(usage.requests)
    RETRIES.add(usage.retries)
    price = current().price
    if price is not None:
        COST.add(float(price.cost(usage.tokens)), currency=price.currency)
