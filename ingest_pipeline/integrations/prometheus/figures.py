"""Collects the figures of all corpora of a database for the official client of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from ingest_pipeline.corpus.saga_timeouts import SILENCE_SECONDS
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.postgres.gauges import read_figures


class CatalogCollector(Collector):
    """Reads the figures for each scrape, in one transaction. An error in one statement fails the scrape.

    Args:
        database: The database, open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Metric]:
        """Nothing: a registry that asks does not have to read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures with their values.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        with self._database.transaction() as connection:
            found = list(read_figures(connection, SILENCE_SECONDS))
        for figure, values in found:
            family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            metric = family(figure.name, figure.description, labels=figure.labels)
            for labels, value in values:
                metric.add_metric(labels, value)
            yield metric


def registry_of(database: Database) -> CollectorRegistry:
    """A registry with these figures alone.

    Args:
        database: The database, open.
    """
    registry = CollectorRegistry()
    registry.register(CatalogCollector(database))
    return registry
