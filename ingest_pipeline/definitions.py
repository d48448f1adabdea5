"""The ready code location: one corpus, configured by the environment. ``workspace.yaml`` loads it."""

from ingest_pipeline.config import Settings
from ingest_pipeline.orchestration.build import build_definitions

defs = build_definitions(Settings.from_environment())
