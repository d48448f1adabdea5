"""Loads a corpus as the input of assets that depend on its head."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import RESUME_RETRY_TAG

from ingest_pipeline.config.corpus_config import CorpusConfig
from ingest_pipeline.corpus.pinned import pin_for_run
from ingest_pipeline.postgres.catalog.pins import Pin
from ingest_pipeline.resources.embedder import OpenAIEmbedderResource
from ingest_pipeline.resources.keys import resource_key, resource_of
from ingest_pipeline.resources.lancedb import VersionedLanceDBResource
from ingest_pipeline.resources.names import DagsterNames

if TYPE_CHECKING:
    from ingest_pipeline.search.corpus_at_head import CorpusAtHead

# A run's own materialization of head is among the last ones, unless so many others came after it.
_MAX_EVENTS = 100


def head_inputs(settings: CorpusConfig) -> dg.IOManagerDefinition:
    """The IO manager of a corpus' head, which gives inputs of the type `CorpusAtHead`.

    Args:
        settings: Settings of the corpus.
    """
    names = DagsterNames.of(settings)
    kinds = (VersionedLanceDBResource, OpenAIEmbedderResource)

    @dg.io_manager(
        required_resource_keys={resource_key(names, kind) for kind in kinds},
        description=f"Loads the corpus {settings.corpus} at its head, the same for all inputs of a run.",
    )
    def load(context: dg.InitResourceContext) -> _HeadInputs:
        lancedb = resource_of(context.resources, names, VersionedLanceDBResource)
        embedder = resource_of(context.resources, names, OpenAIEmbedderResource)
        return _HeadInputs(settings, lancedb, embedder)

    return load


class _HeadInputs(dg.IOManager):
    def __init__(
        self, settings: CorpusConfig, lancedb: VersionedLanceDBResource, embedder: OpenAIEmbedderResource
    ) -> None:
        self._settings = settings
        self._corpus = settings.corpus
        self._catalog = lancedb.catalog
        self._embedder = embedder

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:  # noqa: ANN401  Dagster's
        """Nothing is stored: the corpus is in its own two stores."""

    def load_input(self, context: dg.InputContext) -> CorpusAtHead:
        # Every run of the corpus creates this IO manager, and few of them search.
        from ingest_pipeline.search.configured_search import SearchClients  # noqa: PLC0415
        from ingest_pipeline.search.corpus_at_head import CorpusAtHead  # noqa: PLC0415

        run = context.step_context.dagster_run
        again = run.parent_run_id if run.tags.get(RESUME_RETRY_TAG) == "true" else None
        with self._catalog.connect() as database:
            pin = pin_for_run(
                database,
                self._corpus,
                run.run_id,
                lambda: _named_by_event(context.instance, context.asset_key, run.run_id),
                again=again,
            )
        # Metadata of the input would become an observation of `head`, which interrupts the plots on the page of `head`.
        context.log.info(
            f"This run reads corpus {self._corpus} at version {pin.version} of generation {pin.generation}"
        )
        clients = replace(SearchClients.of(self._settings), create_embedder=self._embedder.create_embedder)
        return CorpusAtHead(self._corpus, clients, self._catalog.connect, pin)


def _named_by_event(instance: dg.DagsterInstance, head: dg.AssetKey, run_id: str) -> Pin | None:
    """The version that the run published, or else the last one that was reported to Dagster."""
    records = instance.fetch_materializations(head, limit=_MAX_EVENTS).records
    found = next((record for record in records if record.run_id == run_id), records[0] if records else None)
    event = None if found is None else found.asset_materialization
    generation, _, version = ((event.tags or {}).get(DATA_VERSION_TAG, "") if event else "").rpartition("@")
    return Pin(generation, int(version)) if generation and version.isdecimal() else None
