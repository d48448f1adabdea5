"""A ready code location: the corpus that the environment configures. ``workspace.yaml`` loads it."""

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.orchestration.build import build_definitions

defs = build_definitions(CorpusConfig.from_environment())
