"""The code location of a corpus whose source sensor is on or off from the start, as a benchmark wants it."""

import os

from ingest_pipeline.code_location import DefinitionOptions, build_resources, corpus_definitions, pipeline_settings
from ingest_pipeline.settings import Settings

_settings = Settings.from_environment()
defs = corpus_definitions(
    pipeline_settings(_settings),
    build_resources(_settings),
    DefinitionOptions(source_sensor=os.environ["BENCHMARK_SENSOR"] == "on"),
)
