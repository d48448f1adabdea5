"""A ready code location: the corpora of a configuration file, or the one that the environment configures.

`workspace.yaml` loads it. A project of `dg` has definitions of its own.
"""

from pathlib import Path

import dagster as dg

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.config.project import ConfiguredCorpus, find_project
from ingest_pipeline.orchestration.build import DagsterOptions, build_definitions, build_resources, corpus_definitions


def _definitions() -> dg.Definitions:
    project = find_project(Path.cwd())
    if project is None or project.location is not None:
        return build_definitions(CorpusConfig.from_environment())
    return dg.Definitions.merge(*(_corpus(project.configured(name)) for name in sorted(project.corpora)))


def _corpus(corpus: ConfiguredCorpus) -> dg.Definitions:
    secrets = {option: _variable(corpus, option) for option in ("database_url", "embedding_api_key")}
    return corpus_definitions(corpus.config, build_resources(corpus.config, **secrets), DagsterOptions())


def _variable(corpus: ConfiguredCorpus, option: str) -> dg.EnvVar | None:
    """The variable that has the value of an option. None: the option has no value, or the file has it."""
    name = corpus.origin.setting(option)
    return None if getattr(corpus.config, option) is None or name == option else dg.EnvVar(name)


defs = _definitions()
