"""The ready code location: one corpus, configured by the environment. ``workspace.yaml`` loads it."""

from ingest_pipeline.code_location import build_definitions
from ingest_pipeline.settings import Settings

defs = build_definitions(Settings.from_environment())
