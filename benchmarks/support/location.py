"""The code location of a corpus whose source sensor is on or off from the start, as a benchmark wants it."""

import os

from dagster import EnvVar

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import (
    DagsterOptions,
    build_resources,
    corpus_definitions,
)

_settings = CorpusConfig.from_environment()
defs = corpus_definitions(
    _settings,
    build_resources(_settings, database_url=EnvVar("INGEST_DATABASE_URL")),
    DagsterOptions(source_sensor=os.environ["BENCHMARK_SENSOR"] == "on"),
)
