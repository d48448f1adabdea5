"""The code location of a corpus whose source sensor is on or off from the start, as a benchmark wants it."""

import os

from ingest_pipeline.config import Settings
from ingest_pipeline.orchestration.build import (
    DefinitionOptions,
    build_resources,
    corpus_definitions,
    pipeline_settings,
)

_settings = Settings.from_environment()
defs = corpus_definitions(
    pipeline_settings(_settings),
    build_resources(_settings),
    DefinitionOptions(source_sensor=os.environ["BENCHMARK_SENSOR"] == "on"),
)
