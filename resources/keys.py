"""Keys of a corpus' resources. They begin with its names in Dagster, so that corpora can share a code location."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from dagster import ConfigurableResource

from ingest_pipeline.config.options.corpus_options import CorpusOptions
from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.resources.catalog import PostgresCatalogResource
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import HEAD, DagsterNames
from ingest_pipeline.resources.source import DocumentSourceResource

_NAMES: Mapping[type[ConfigurableResource[None]], str] = {
    PostgresCatalogResource: "catalog",
    DocumentSourceResource: "source",
    VersionedLanceDBResource: "lancedb",
    OpenAIEmbedderResource: "embedder",
}
R = TypeVar("R", bound=ConfigurableResource[None])


@dataclass(frozen=True, slots=True)
class CorpusResources:
    """The four resources of a corpus."""

    catalog: PostgresCatalogResource
    source: DocumentSourceResource
    lancedb: VersionedLanceDBResource
    embedder: OpenAIEmbedderResource

    def by_key(self, config: CorpusOptions) -> dict[str, ConfigurableResource[None]]:
        """The resources, under the keys that the definitions of the corpus require."""
        names = DagsterNames.of(config)
        return {resource_key(names, kind): getattr(self, name) for kind, name in _NAMES.items()}


def resource_key(names: DagsterNames, kind: type[ConfigurableResource[None]]) -> str:
    """The key of a corpus' resource of one of the four kinds."""
    return names.name(_NAMES[kind])


def head_inputs_key(names: DagsterNames) -> str:
    """The key of the IO manager that loads a corpus as an input."""
    return names.name(HEAD)


def resource_of(resources: object, names: DagsterNames, kind: type[R]) -> R:
    """A corpus' resource of one of the four kinds.

    Args:
        resources: The `resources` of a Dagster context, whose definition must require the key.
        names: Names of the corpus in Dagster.
        kind: The class of the resource.

    Raises:
        ConfigurationError: The key has a resource of another class.
    """
    key = resource_key(names, kind)
    found = getattr(resources, key)
    if not isinstance(found, kind):
        raise ConfigurationError(
            f"The resource {key!r} is a {type(found).__name__}, not a {kind.__name__}",
            "Put a resource of that class under the key.",
        )
    return found
